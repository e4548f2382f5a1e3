#!/bin/sh
# gotest.sh ARGUMENTS...: runs `go test` once for each argument, which holds the
# words of one command line ("-race ./a ./b"), one run after the other.
#
# Prints what `go test` prints without -v: a line per package, and what failed.
# Then the ten slowest tests, and one line with the number of tests and of skipped
# ones by reason. Exits with the first run's status that is not 0.
set -u

status=$(mktemp)
trap 'rm -f "$status"' EXIT
trap 'exit 130' INT TERM

# -v is the only text form that names skipped tests. awk keeps a package's lines
# until its last line says whether to show them.
{
	for arguments; do
		# shellcheck disable=SC2086 # a list of words
		go test -v $arguments 2>&1 || echo $? >>"$status"
	done
} | awk '
	function seconds(text) { gsub(/[()s]/, "", text); return text + 0 }

	/^=== (RUN|PAUSE|CONT|NAME) / { current = $3; next }
	/^ *--- (PASS|FAIL): / {
		tests++
		if (/^---/) { time[ended] = seconds($4); test[ended++] = $3 }    # top level only
		if ($2 == "PASS:") next
	}
	match($0, /--- SKIP: [^ ]+ \([0-9.]+s\)$/) {    # may follow output that ends without a newline
		split(substr($0, RSTART), word, " ")
		skip[skips++] = word[3]
		tests++
		next
	}
	/^(ok  |FAIL|\?   )\t/ {
		if ($1 == "FAIL") for (i = 0; i < n; i++) print line[i]
		print
		fflush()
		for (i = 0; i < skips; i++) {
			why = skip[i] in reason ? reason[skip[i]] : "no reason given"
			if (!(why in count)) order[reasons++] = why
			if (count[why]++ < 5) names[why] = names[why] ", " $2 " " skip[i]
			skipped++
		}
		for (i = 0; i < ended; i++) { slow[slows] = time[i]; label[slows++] = $2 " " test[i] }
		n = skips = ended = 0
		delete reason
		next
	}
	/^PASS$/ { next }
	{ line[n++] = $0 }
	match($0, /    [^ ]+\.go:[0-9]+: /) {    # a skipped test prints its reason last
		reason[current] = substr($0, RSTART + RLENGTH)
	}
	END {
		for (i = 0; i < n; i++) print line[i]    # lines of no package
		print "slowest tests:"
		for (k = 0; k < 10 && k < slows; k++) {
			best = k
			for (i = k + 1; i < slows; i++) if (slow[i] > slow[best]) best = i
			printf "  %7.2f s  %s\n", slow[best], label[best]
			slow[best] = slow[k]; label[best] = label[k]
		}
		if (!skipped) { print "skipped: 0 of " tests + 0 " tests"; exit }
		for (i = 0; i < reasons; i++) {
			why = order[i]
			more = count[why] > 5 ? " and " count[why] - 5 " more" : ""
			all = all "; " why ": " substr(names[why], 3) more
		}
		print "skipped: " skipped " of " tests " tests; " substr(all, 3)
	}
'
exit "$(awk 'NR == 1 { code = $1 } END { print code + 0 }' "$status")"
