#!/bin/sh
# gotest.sh ARGUMENTS OF go test: runs it and prints what it prints without -v,
# the packages' lines and what failed, then one line that lists every skipped
# test with its reason. Exits as go test does.
set -u

status=$(mktemp)
trap 'rm -f "$status"' EXIT
trap 'exit 130' INT TERM

# -v is the one text form that names skipped tests. awk keeps a package's lines
# until its last one says whether anybody needs to see them.
{ go test -v "$@" 2>&1; echo $? >"$status"; } | awk '
	/^=== (RUN|PAUSE|CONT|NAME) / { current = $3; next }
	/^ *--- PASS: / { next }
	match($0, /--- SKIP: [^ ]+ \([0-9.]+s\)$/) {    # a test that prints no newline stands before it
		split(substr($0, RSTART), word, " ")
		name = word[3]
		skip[skips++] = name (name in reason ? " (" reason[name] ")" : "")
		next
	}
	/^(ok  |FAIL|\?   )\t/ {
		if ($1 == "FAIL") for (i = 0; i < n; i++) print line[i]
		print
		fflush()
		for (i = 0; i < skips; i++) skipped = skipped "; " $2 " " skip[i]
		n = skips = 0
		delete reason
		next
	}
	/^PASS$/ { next }
	{ line[n++] = $0 }
	match($0, /    [^ ]+\.go:[0-9]+: /) {    # the last thing a skipped test says is why
		reason[current] = substr($0, RSTART + RLENGTH)
	}
	END {
		for (i = 0; i < n; i++) print line[i]    # what belongs to no package
		print "skipped: " (skipped == "" ? "nothing" : substr(skipped, 3))
	}
'
exit "$(cat "$status")"
