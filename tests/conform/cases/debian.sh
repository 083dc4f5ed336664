# debian.sh - the same with a distribution in the image: bash, coreutils, dpkg, apt, python, git.

debian_container() { # ID
	made "$1"
	quiet ctr run -d --runtime "$RT" $DEB "$1" sleep infinity
}

debian_shell() {
	debian_container d1
	x d1 bash -c 'set -o pipefail; a=(x y z); declare -A m=([k]=v); echo "${a[@]: -1} ${m[k]} ${BASH_VERSINFO[0]}"
		cat <(seq 3) | tac | paste -sd,; false | true; echo $?; printf "%q\n" "a b"; time true 2>/dev/null; echo $((2**40)); [[ abc =~ ^a(.)c$ ]] && echo ${BASH_REMATCH[1]}' 2>/dev/null
	out_has 'z v 5'
	x d1 bash -c 'cd /tmp; seq 100000 | sort -R | sort -n | md5sum; install -D -m 640 /etc/hostname a/b/c 2>/dev/null; cp -a /etc/skel s; ls -A s; stat -c "%a %n" s/.bashrc
		cat /etc/debian_version; id -un; getent passwd www-data; head -c 1M /dev/zero | gzip | zcat | wc -c; timeout 1 sleep 5; echo $?; nice -n 5 nice; date -u -d @0 +%F; ln -s /usr/bin l; readlink -f l; mktemp -d | wc -c; df --output=target / | tail -1'
	out_has '1970-01-01'
}
t "bash and coreutils of a Debian do as they do" debian_shell

debian_packages() {
	debian_container d1
	x d1 sh -c 'dpkg -i /root/hello-local.deb 2>&1 | sed "s/(Reading.*//"; hello-local; dpkg-query -W hello-local; cat /etc/hello-local.conf; id hello-local | cut -c1-4; dpkg -P hello-local 2>&1 | tail -n 1; ls /usr/bin/hello-local 2>&1'
	out_has 'hello from a package'
	x d1 sh -c 'DEBIAN_FRONTEND=noninteractive apt-get -y -o APT::Sandbox::User=root --no-install-recommends install /root/hello-local.deb >/tmp/log 2>&1; echo $?; hello-local; dpkg -V hello-local; dpkg --audit; grep -c "^Setting up hello-local" /tmp/log; apt-mark showmanual hello-local'
	out_has 'hello from a package'
}
t "dpkg and apt-get install a local package" debian_packages

debian_python() {
	debian_container d1
	x d1 python3 -c '
import os, sys, time
print("hello from python", sys.version_info[0], os.getpid() > 0, os.getuid())
r, w = os.pipe()
pid = os.fork()
if pid == 0:
    os.write(w, b"from a child"); os._exit(11)
print(os.read(r, 100), os.waitpid(pid, 0)[1] >> 8)
open("/tmp/x", "w").write("x" * 100000)
print(os.stat("/tmp/x").st_size, sorted(os.listdir("/root")))
t = time.monotonic(); time.sleep(0.2); print(time.monotonic() - t >= 0.2)
sys.exit(12)'
	status 12
	out_has 'hello from python 3'
}
t "python runs" debian_python

debian_git() {
	debian_container d1
	x d1 sh -c 'export HOME=/root; git config --global user.email a@example.com; git config --global user.name a; git config --global init.defaultBranch main
		mkdir /src; cd /src; git init -q; for d in $(seq 30); do mkdir d$d; for f in $(seq 20); do echo "file $f of $d" >d$d/f$f; done; done
		git add .; GIT_AUTHOR_DATE="2001-01-01 00:00:00 +0000" GIT_COMMITTER_DATE="2001-01-01 00:00:00 +0000" git commit -qm all; git rev-parse HEAD
		git clone -q /src /dst; cd /dst; git status --porcelain | wc -l; git ls-files | wc -l; git fsck 2>&1; cmp d7/f7 /src/d7/f7 && echo same; rm -r d1; git status --porcelain | wc -l; git checkout -q .; git status --porcelain | wc -l'
	out_has same
}
t "git makes, clones and checks a repository" debian_git

debian_users() {
	debian_container d1
	x d1 sh -c 'useradd -m -u 1234 someone; su - someone -c "id; pwd; ls -A; touch /root/x; umask" 2>&1; groupadd -g 4321 g; usermod -aG g someone; su someone -c "id -Gn"; echo someone:secret | chpasswd && stat -c "%a %U %G" /etc/shadow; passwd -S someone | cut -d" " -f1,2'
	out_has 'Permission denied'
	see ctr task exec --exec-id u --user someone d1 id
	out_has 'uid=1234(someone)'
}
t "users are made, become, and are refused" debian_users
