# basic.sh - one container: what its process is given and what comes back.

basic_hello() {
	see run $BB c1 echo hello
	status 0
	out hello
	err ""
}
t "a container prints, and nothing else is printed" basic_hello

basic_status() {
	see run $BB c1 sh -c 'exit 7'
	status 7
	see run $BB c1 sh -c 'sh -c "kill -KILL \$\$"; exit $?'
	status 137
	up c2 -- sleep 1000
	for n in 0 1 2 126 127 255; do
		x c2 sh -c "exit $n"
		status $n
	done
	x c2 sh -c 'kill -TERM $$'
	status 143
	x c2 sh -c 'kill -SEGV $$'
	status 139
}
t "an exit status arrives as it is, a signal as 128 and its number" basic_status
