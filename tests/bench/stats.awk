# stats.awk - "NAME VALUE" lines, sorted by name, then value -> "NAME n min p50 p99 max"
function end() {
	if (n)
		print name, n, v[1], v[int((n + 1) / 2)], v[int(n * 0.99 + 0.99)], v[n]
	n = 0
}
$1 != name { end(); name = $1 }
{ v[++n] = $2 }
END { end() }
