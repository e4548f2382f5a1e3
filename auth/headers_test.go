package auth

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestParseBearer(t *testing.T) {
	for _, row := range []struct {
		name    string
		values  []string
		token   string
		present bool
		want    error
	}{
		{"none", nil, "", false, nil},
		{"usual", []string{"Bearer abc.def-_~+/="}, "abc.def-_~+/=", true, nil},
		{"lower case", []string{"bearer abc"}, "abc", true, nil},
		{"upper case", []string{"BEARER abc"}, "abc", true, nil},
		{"several spaces", []string{" Bearer   abc\t"}, "abc", true, nil},
		{"the token's case stays", []string{"Bearer AbC"}, "AbC", true, nil},
		{"Basic is ignored", []string{"Basic dXNlcjpwYXNz"}, "", false, nil},
		{"Negotiate without more", []string{"Negotiate"}, "", false, nil},
		{"empty", []string{""}, "", true, errAuthorization},
		{"blank", []string{"  "}, "", true, errAuthorization},
		{"no token", []string{"Bearer"}, "", true, errAuthorization},
		{"no token but a space", []string{"Bearer "}, "", true, errAuthorization},
		{"tab instead of space", []string{"Bearer\tabc"}, "", true, errAuthorization},
		{"no scheme", []string{"abc@def ghi"}, "", true, errAuthorization},
		{"two tokens", []string{"Bearer abc def"}, "", true, errAuthorization},
		{"two joined by a proxy", []string{"Bearer abc, Bearer def"}, "", true, errAuthorization},
		{"two joined without space", []string{"Bearer abc,def"}, "", true, errAuthorization},
		{"newline", []string{"Bearer abc\n"}, "", true, errAuthorization},
		{"NUL", []string{"Bearer ab\x00c"}, "", true, errAuthorization},
		{"not ASCII", []string{"Bearer abç"}, "", true, errAuthorization},
		{"two fields", []string{"Bearer abc", "Bearer def"}, "", true, errTwoAuthorizations},
		{"two equal fields", []string{"Bearer abc", "Bearer abc"}, "", true, errTwoAuthorizations},
		{"Basic and Bearer", []string{"Basic abc", "Bearer abc"}, "", true, errTwoAuthorizations},
	} {
		token, present, err := ParseBearer(row.values)
		if token != row.token || present != row.present || err != row.want {
			t.Errorf("%s: %q, %v, %v", row.name, token, present, err)
		}
	}
}

func TestQueryToken(t *testing.T) {
	for _, row := range []struct {
		values  []string
		token   string
		present bool
		want    error
	}{
		{nil, "", false, nil},
		{[]string{"abc"}, "abc", true, nil},
		{[]string{""}, "", true, nil},
		{[]string{"abc", "abc"}, "", true, errTwoTokens},
	} {
		token, present, err := QueryToken(row.values)
		if token != row.token || present != row.present || err != row.want {
			t.Errorf("%q: %q, %v, %v", row.values, token, present, err)
		}
	}
}

func TestCookieValue(t *testing.T) {
	long := strings.Repeat("x", maxCookieBytes)
	for _, row := range []struct {
		name    string
		headers []string
		value   string
		present bool
		want    error
	}{
		{"none", nil, "", false, nil},
		{"others only", []string{"a=b; session=x"}, "", false, nil},
		{"alone", []string{"sid=abc"}, "abc", true, nil},
		{"among others", []string{"a=b; sid=abc; c=d"}, "abc", true, nil},
		{"without space", []string{"a=b;sid=abc;c=d"}, "abc", true, nil},
		{"in the second field", []string{"a=b", "sid=abc"}, "abc", true, nil},
		{"quoted", []string{`sid="abc"`}, "abc", true, nil},
		{"signed by Express", []string{"sid=s%3Aabc.d+/f"}, "s%3Aabc.d+/f", true, nil},
		{"equals signs", []string{"sid=a=b="}, "a=b=", true, nil},
		{"empty", []string{"sid="}, "", true, nil},
		{"empty in quotes", []string{`sid=""`}, "", true, nil},
		{"name without value", []string{"sid"}, "", false, nil},
		{"another case", []string{"SID=abc; Sid=def"}, "", false, nil},
		{"longer name", []string{"sid2=abc; xsid=def"}, "", false, nil},
		{"space in the name", []string{"sid =abc"}, "", false, nil},
		{"inside another's value", []string{"a=sid=abc"}, "", false, nil},
		{"others garbled", []string{"\x00\xff; =; ;;sid=abc; b=\"x y"}, "abc", true, nil},
		{"twice the same", []string{"sid=abc; sid=abc", "sid=abc"}, "abc", true, nil},
		{"twice the same, once quoted", []string{`sid=abc; sid="abc"`}, "abc", true, nil},
		{"two", []string{"sid=abc; sid=def"}, "", true, errTwoCookies},
		{"two in two fields", []string{"sid=abc", "a=b; sid=def"}, "", true, errTwoCookies},
		{"two, one empty", []string{"sid=; sid=abc"}, "", true, errTwoCookies},
		{"two, the other empty", []string{"sid=abc; sid="}, "", true, errTwoCookies},
		{"two, one garbled", []string{"sid=abc; sid=\x01"}, "", true, errTwoCookies},
		{"space inside", []string{"sid=a b"}, "", true, errCookie},
		{"comma", []string{"sid=a,b"}, "", true, errCookie},
		{"half a quote", []string{`sid="abc`}, "", true, errCookie},
		{"one quote", []string{`sid="`}, "", true, errCookie},
		{"backslash", []string{`sid=a\b`}, "", true, errCookie},
		{"newline", []string{"sid=abc\n"}, "", true, errCookie},
		{"not ASCII", []string{"sid=é"}, "", true, errCookie},
		{"longest", []string{"sid=" + long}, long, true, nil},
		{"too long", []string{"sid=" + long + "x"}, "", true, errCookie},
	} {
		value, present, err := CookieValue(row.headers, "sid")
		if value != row.value || present != row.present || err != row.want {
			t.Errorf("%s: %q, %v, %v", row.name, value, present, err)
		}
	}
}

func TestValidCookieName(t *testing.T) {
	for name, want := range map[string]bool{
		"sid": true, "__Host-sid": true, "connect.sid": true,
		"": false, "a b": false, "a=b": false, "a;b": false, "sïd": false, "a\n": false,
	} {
		if ValidCookieName(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

func TestBearerSubprotocol(t *testing.T) {
	for _, row := range []struct {
		name   string
		values []string
		token  string
		herald bool
		want   error
	}{
		{"none", nil, "", false, nil},
		{"herald only", []string{"herald.v1"}, "", true, nil},
		{"both", []string{"herald.v1, bearer.a.b.c"}, "a.b.c", true, nil},
		{"both the other way, no space", []string{"bearer.a.b.c,herald.v1"}, "a.b.c", true, nil},
		{"in two fields", []string{"herald.v1", "bearer.a-_.b.c"}, "a-_.b.c", true, nil},
		{"bearer only", []string{"bearer.a.b.c"}, "a.b.c", false, nil},
		{"others", []string{"mqtt, herald.v2, Herald.v1, Bearer.x"}, "", false, nil},
		{"bearer without a dot is another", []string{"bearer"}, "", false, nil},
		{"empty elements", []string{"", ",, herald.v1 ,\t"}, "", true, nil},
		{"empty token", []string{"herald.v1, bearer."}, "", true, errSubprotocol},
		{"two", []string{"bearer.a, bearer.b"}, "", false, errTwoSubprotocol},
		{"twice the same", []string{"bearer.a", "herald.v1,bearer.a"}, "", true, errTwoSubprotocol},
		{"space inside", []string{"herald.v1 bearer.a"}, "", false, errSubprotocol},
		{"equals sign", []string{"bearer.a="}, "", false, errSubprotocol},
		{"newline", []string{"herald.v1,bearer.a\n"}, "", false, errSubprotocol},
		{"not ASCII", []string{"bearer.é"}, "", false, errSubprotocol},
	} {
		token, herald, err := BearerSubprotocol(row.values)
		if token != row.token || err != row.want || err == nil && herald != row.herald {
			t.Errorf("%s: %q, %v, %v", row.name, token, herald, err)
		}
	}
}

func FuzzParseBearer(f *testing.F) {
	f.Add("Bearer abc", "")
	f.Add("bearer  a", "Basic x")
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, values := range [][]string{{a}, {a, b}} {
			token, present, err := ParseBearer(values)
			switch {
			case err != nil && (!errors.Is(err, ErrCredentials) || !present || token != ""):
				t.Fatalf("%q: %q, %v, %v", values, token, present, err)
			case err == nil && present && (token == "" || len(values) > 1 || !strings.Contains(a, token)):
				t.Fatalf("%q: %q", values, token)
			case err == nil && present && strings.ContainsAny(token, " ,\t\r\n\x00\x7f"):
				t.Fatalf("%q: %q", values, token)
			case err == nil && !present && token != "":
				t.Fatalf("%q: %q, not present", values, token)
			}
		}
	})
}

func FuzzCookieValue(f *testing.F) {
	f.Add("sid=abc; a=b", "sid=abc")
	f.Add(`sid="a"; sid=a`, "")
	f.Add("sid=a;sid=b", "=;;")
	f.Fuzz(func(t *testing.T, a, b string) {
		value, present, err := CookieValue([]string{a, b}, "sid")
		// A second implementation: the set of all values of the name.
		var all []string
		for _, pair := range strings.Split(a+";"+b, ";") {
			if name, v, ok := strings.Cut(strings.Trim(pair, " \t"), "="); ok && name == "sid" {
				if len(v) > 1 && strings.HasPrefix(v, `"`) && strings.HasSuffix(v, `"`) {
					v = v[1 : len(v)-1]
				}
				all = append(all, v)
			}
		}
		slices.Sort(all)
		all = slices.Compact(all)
		switch {
		case err == nil && present != (len(all) == 1):
			t.Fatalf("present is %v with %q", present, all)
		case err == nil && present && (value != all[0] || strings.ContainsAny(value, "; ,\"\\\r\n\t\x00")):
			t.Fatalf("value %q of %q", value, all)
		case err != nil && (!present || value != "" || len(all) == 0):
			t.Fatalf("%q, %v, %v with %q", value, present, err, all)
		case len(all) > 1 && err != errTwoCookies:
			t.Fatalf("error %v with %q", err, all)
		}
	})
}

func FuzzBearerSubprotocol(f *testing.F) {
	f.Add("herald.v1, bearer.a.b.c", "x")
	f.Add("bearer.", ",")
	f.Fuzz(func(t *testing.T, a, b string) {
		token, herald, err := BearerSubprotocol([]string{a, b})
		both := a + "," + b
		switch {
		case err != nil && (token != "" || !errors.Is(err, ErrCredentials)):
			t.Fatalf("%q, %v", token, err)
		case err != nil:
		case strings.Count(both, "bearer.") == 0 && token != "", !strings.Contains(both, "bearer."+token) && token != "":
			t.Fatalf("token %q of %q", token, both)
		case strings.ContainsAny(token, ", \t\r\n"):
			t.Fatalf("token %q", token)
		case herald && !strings.Contains(both, Subprotocol):
			t.Fatalf("%q offers no %s", both, Subprotocol)
		}
	})
}

func BenchmarkCookieValue(b *testing.B) {
	headers := []string{"_ga=GA1.2.1234567890.1700000000; theme=dark; sid=" + strings.Repeat("a", 64) + "; lang=en"}
	b.ReportAllocs()
	for b.Loop() {
		if _, present, err := CookieValue(headers, "sid"); !present || err != nil {
			b.Fatal(err)
		}
	}
}
