package limiter

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func prefixes(t testing.TB, csv string) []netip.Prefix {
	t.Helper()
	p, err := ParsePrefixes(csv)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestClientIP(t *testing.T) {
	const own = "10.0.0.0/8, 192.0.2.1, fd00::/8"
	for _, c := range []struct {
		name, trusted, peer string
		forwarded           []string
		want                string
	}{
		{"no proxies: the header is not read", "", "10.0.0.1", []string{"203.0.113.5"}, "10.0.0.1"},
		{"peer is not a proxy", own, "198.51.100.7", []string{"203.0.113.5"}, "198.51.100.7"},
		{"proxy without header", own, "10.0.0.1", nil, "10.0.0.1"},
		{"one proxy", own, "10.0.0.1", []string{"203.0.113.5"}, "203.0.113.5"},
		{"what the client claims is not walked", own, "10.0.0.1", []string{"1.1.1.1, 203.0.113.5"}, "203.0.113.5"},
		{"two proxies", own, "10.0.0.1", []string{"1.1.1.1,203.0.113.5 ,\t192.0.2.1"}, "203.0.113.5"},
		{"several header lines are one list", own, "10.0.0.1", []string{"1.1.1.1", "203.0.113.5", "10.9.9.9"}, "203.0.113.5"},
		{"everyone is a proxy", own, "10.0.0.1", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"malformed stops at the last known", own, "10.0.0.1", []string{"203.0.113.5, unknown, 10.0.0.2"}, "10.0.0.2"},
		{"empty entry is malformed", own, "10.0.0.1", []string{"203.0.113.5, , 10.0.0.2"}, "10.0.0.2"},
		{"empty line is malformed", own, "10.0.0.1", []string{"203.0.113.5", ""}, "10.0.0.1"},
		{"port", own, "10.0.0.1", []string{"203.0.113.5:4711"}, "203.0.113.5"},
		{"bad port", own, "10.0.0.1", []string{"203.0.113.5:99999"}, "10.0.0.1"},
		{"no port after colon", own, "10.0.0.1", []string{"203.0.113.5:"}, "10.0.0.1"},
		{"v6", own, "fd00::1", []string{"2001:db8::5"}, "2001:db8::5"},
		{"v6 in brackets", own, "fd00::1", []string{"[2001:db8::5]"}, "2001:db8::5"},
		{"v6 with port", own, "fd00::1", []string{"[2001:db8::5]:443"}, "2001:db8::5"},
		{"v4 in brackets", own, "fd00::1", []string{"[203.0.113.5]"}, "fd00::1"},
		{"zone in the entry", own, "10.0.0.1", []string{"fe80::1%eth0"}, "fe80::1"},
		{"zone in brackets", own, "10.0.0.1", []string{"[fe80::1%eth0]:80"}, "fe80::1"},
		{"zone of the peer", "fe80::/10", "fe80::9%eth0", []string{"203.0.113.5"}, "203.0.113.5"},
		{"mapped peer", own, "::ffff:10.0.0.1", []string{"203.0.113.5"}, "203.0.113.5"},
		{"mapped entry", own, "10.0.0.1", []string{"203.0.113.5, ::ffff:10.0.0.2"}, "203.0.113.5"},
		{"mapped client", own, "10.0.0.1", []string{"::ffff:203.0.113.5"}, "203.0.113.5"},
		{"mapped prefix", "::ffff:10.0.0.0/104", "10.0.0.1", []string{"203.0.113.5"}, "203.0.113.5"},
		{"quoted", own, "10.0.0.1", []string{`"203.0.113.5"`}, "10.0.0.1"},
		{"leading zeros", own, "10.0.0.1", []string{"203.0.113.05"}, "10.0.0.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ClientIP(netip.MustParseAddr(c.peer), c.forwarded, prefixes(t, c.trusted))
			if got != netip.MustParseAddr(c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestClientIPOfNobody(t *testing.T) {
	if got := ClientIP(netip.Addr{}, []string{"203.0.113.5"}, prefixes(t, "0.0.0.0/0,::/0")); got.IsValid() {
		t.Fatalf("an unknown peer is nobody's proxy: %v", got)
	}
}

func TestParsePrefixes(t *testing.T) {
	for csv, want := range map[string]string{
		"":                      "",
		" \t":                   "",
		"10.0.0.0/8":            "10.0.0.0/8",
		"10.1.2.3/8":            "10.0.0.0/8",
		"10.0.0.1, ::1":         "10.0.0.1/32 ::1/128",
		"::ffff:10.0.0.1":       "10.0.0.1/32",
		"::ffff:10.0.0.0/104":   "10.0.0.0/8",
		"fd00::/8\t,0.0.0.0/0 ": "fd00::/8 0.0.0.0/0",
	} {
		got := prefixes(t, csv)
		texts := make([]string, len(got))
		for i, p := range got {
			texts[i] = p.String()
		}
		if s := strings.Join(texts, " "); s != want {
			t.Errorf("ParsePrefixes(%q) = %s, want %s", csv, s, want)
		}
	}
	for csv, part := range map[string]string{
		"10.0.0.0/33":            `"10.0.0.0/33"`,
		"10.0.0.0/8,":            `""`,
		"10.0.0.0/8, proxy, ::1": `"proxy"`,
		"fe80::1%eth0":           `"fe80::1%eth0"`,
		"::ffff:10.0.0.0/80":     "IPv4-mapped",
		"10.0.0.1:80":            `"10.0.0.1:80"`,
	} {
		if got, err := ParsePrefixes(csv); err == nil || got != nil || !strings.Contains(err.Error(), part) {
			t.Errorf("ParsePrefixes(%q) = %v, %v; want an error that says %s", csv, got, err, part)
		}
	}
}

func TestSubject(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.7":                "192.0.2.7",
		"::ffff:192.0.2.7":         "192.0.2.7",
		"2001:db8:0:1:2:3:4:5":     "2001-db8-0-1",
		"2001:db8:0:1::9":          "2001-db8-0-1",
		"2001:db8:0:2::9":          "2001-db8-0-2",
		"::1":                      "0-0-0-0",
		"fe80::1%eth0":             "fe80-0-0-0",
		"ffff:ffff:ffff:ffff:1::1": "ffff-ffff-ffff-ffff",
	} {
		if got := Subject(netip.MustParseAddr(text)); got != want {
			t.Errorf("Subject(%s) = %q, want %q", text, got, want)
		}
	}
	if got := Subject(netip.Addr{}); got != "unknown" {
		t.Errorf("Subject of no address = %q", got)
	}
}

// Whatever the header says: without a trusted proxy in front it changes nothing,
// the answer is the peer or stands in the header, it is bare, its subject is safe
// in a key, and what is left of a client's own address never matters.
func FuzzClientIP(f *testing.F) {
	for _, s := range []string{"203.0.113.5", "1.1.1.1, [2001:db8::1]:80", "fe80::1%z, ::ffff:10.0.0.2", ",,", "a\n10.0.0.1", "10.0.0.9:1,10.0.0.8"} {
		f.Add("10.0.0.1", s, "1.2.3.4")
		f.Add("::ffff:10.0.0.1%9", s, s)
	}
	trusted := prefixes(f, "10.0.0.0/8,fd00::/8")
	f.Fuzz(func(t *testing.T, peerText, header, claim string) {
		peer, _ := netip.ParseAddr(peerText)
		lines := strings.Split(header, "\n")
		if got := ClientIP(peer, lines, nil); got != bare(peer) {
			t.Fatalf("without proxies: %v", got)
		}
		got := ClientIP(peer, lines, trusted)
		if got != bare(got) {
			t.Fatalf("%v is not bare", got)
		}
		if strings.Trim(Subject(got), "0123456789abcdef.-") != "" && got.IsValid() {
			t.Fatalf("subject %q", Subject(got))
		}
		if joined := ClientIP(peer, []string{strings.Join(lines, ",")}, trusted); joined != got {
			t.Fatalf("one line %v, several %v", joined, got)
		}
		if got.IsValid() && !contains(trusted, got) {
			more := append([]string{claim}, lines...)
			if again := ClientIP(peer, more, trusted); again != got {
				t.Fatalf("client %v claims %q and is %v", got, claim, again)
			}
		}
	})
}

func FuzzParsePrefixes(f *testing.F) {
	for _, s := range []string{"", "10.0.0.0/8", "::1,::ffff:1.2.3.4/120", "fe80::%1/64", "1.2.3.4/", ","} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, csv string) {
		all, err := ParsePrefixes(csv)
		if err != nil && all != nil {
			t.Fatalf("%v beside %v", all, err)
		}
		texts := make([]string, len(all))
		for i, p := range all {
			if !p.IsValid() || p != p.Masked() || !contains(all, p.Addr()) || p.Addr() != bare(p.Addr()) {
				t.Fatalf("%q: prefix %v", csv, p)
			}
			texts[i] = p.String()
		}
		if again, err := ParsePrefixes(strings.Join(texts, ",")); err != nil || !slices.Equal(again, all) {
			t.Fatalf("%v printed reads as %v, %v", all, again, err)
		}
	})
}

func BenchmarkClientIP(b *testing.B) {
	trusted := prefixes(b, "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fd00::/8")
	peer, header := netip.MustParseAddr("10.0.0.1"), []string{"203.0.113.5, 10.1.1.1", "10.2.2.2"}
	b.ReportAllocs()
	for b.Loop() {
		ClientIP(peer, header, trusted)
	}
}

func BenchmarkSubject(b *testing.B) {
	a := netip.MustParseAddr("2001:db8:0:1::9")
	b.ReportAllocs()
	for b.Loop() {
		Subject(a)
	}
}
