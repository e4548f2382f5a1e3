package auth

import "strings"

// Subprotocol is the WebSocket subprotocol the gateway speaks. It is the only
// one it may ever select: selecting bearer.<JWT> would echo the token.
const Subprotocol = "herald.v1"

const bearerPrefix = "bearer."

var (
	errSubprotocol    = refuse(ErrCredentials, "malformed Sec-WebSocket-Protocol header")
	errTwoSubprotocol = refuse(ErrCredentials, "several bearer subprotocols")
)

// BearerSubprotocol reads a request's Sec-WebSocket-Protocol fields (RFC 6455,
// 4.2.1), which browsers can set where they cannot set Authorization: the token
// behind "bearer.", empty if there is none, and whether Subprotocol is offered.
// Empty list elements are ignored (RFC 9110, 5.6.1.2). An element that is not a
// token of RFC 9110, an empty bearer and a second one are ErrCredentials.
func BearerSubprotocol(values []string) (token string, offersHerald bool, err error) {
	for _, value := range values {
		for element := range strings.SplitSeq(value, ",") {
			element = trimOWS(element)
			if !only(element, isTokenChar) {
				return "", false, errSubprotocol
			}
			if element == Subprotocol {
				offersHerald = true
			}
			bearer, ok := strings.CutPrefix(element, bearerPrefix)
			switch {
			case !ok:
			case bearer == "":
				return "", offersHerald, errSubprotocol
			case token != "":
				return "", offersHerald, errTwoSubprotocol
			default:
				token = bearer
			}
		}
	}
	return token, offersHerald, nil
}
