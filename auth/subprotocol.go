package auth

import "strings"

// Subprotocol is the gateway's WebSocket subprotocol. The gateway must select no
// other: the response to bearer.<JWT> would repeat the token.
const Subprotocol = "herald.v1"

const bearerPrefix = "bearer."

var (
	errSubprotocol    = refuse(ErrCredentials, "malformed Sec-WebSocket-Protocol header")
	errTwoSubprotocol = refuse(ErrCredentials, "several bearer subprotocols")
)

// BearerSubprotocol returns the token after "bearer." in a request's
// Sec-WebSocket-Protocol fields, or "" without one, and whether the client offers
// Subprotocol (RFC 6455, section 4.2.1). Browsers can set this header for
// WebSockets, but not Authorization.
//
// Empty list elements are ignored (RFC 9110, section 5.6.1.2). BearerSubprotocol
// returns ErrCredentials for an element that is not a token of RFC 9110, for an
// empty bearer token and for several.
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
