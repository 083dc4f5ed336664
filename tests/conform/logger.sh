#!/bin/sh
# logger.sh - a binary:// logger: says what it was given, then both streams, into the file that its
# arguments name ("file PATH"). Descriptors: 3 standard output, 4 standard error, 5 is closed when ready.
while [ $# -gt 1 ]; do
	[ "$1" != file ] || file=$2
	shift 2
done
echo "logger of $CONTAINER_ID in $CONTAINER_NAMESPACE" >"$file"
env | grep -vE '^(PWD|SHLVL|_|OLDPWD|CONTAINER_ID|CONTAINER_NAMESPACE)=' >>"$file"
exec 5>&-
# Line by line: a shim may end its logger as soon as the container has ended.
while read -r line; do echo "err: $line"; done <&4 >>"$file" &
while read -r line; do echo "$line"; done <&3 >>"$file"
wait
echo end >>"$file"
