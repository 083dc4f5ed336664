# raw.sh - the raw client's cases: raw.c says what they are and how, raw_list.def names them.

raw_shim() { # the program behind $RT
	case $RT in
	*.runc.*) echo "$WORK/bin/containerd-shim-runc-v2" ;;
	*) echo "/usr/local/bin/containerd-shim-${RT#io.containerd.}" | sed 's/\.\(v[0-9]\)$/-\1/' ;;
	esac
}

raw_case() { # NAME WHICH
	if [ "$2" = spore ] && [[ $RT != *spore* ]]; then
		return
	fi
	raw "$(raw_shim)" "$WORK/raw" "$WORK/root" "$1" 2>"$WORK/err" >"$WORK/out" || fail "$(cat "$WORK/err"); saw: $(tail -n 3 "$WORK/out" | tr '\n' '|')"
	[ "$2" = spore ] || cat "$WORK/out"
}

while IFS=$'\t' read -r name which sentence; do
	if [ "$which" = slow ]; then
		[ -n "${SPORE_CONFORM_SLOW-}" ] || continue
		which=spore
	fi
	eval "raw_$name() { raw_case $name $which; }"
	t "$sentence" "raw_$name"
done < <(raw x x x list)
