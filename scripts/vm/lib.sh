# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Shared by the scripts of this folder: where the cache is, how to lock it, and
# private apt trees, so that packages of any Debian release can be fetched
# without touching the machine's own package state.

vm_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo_dir=$(cd "$vm_dir/../.." && pwd)
cache_dir=${XFRMSCOPE_CACHE:-$repo_dir/.cache}/vm

# The oldest release whose packages the guest consists of, and the kernels that
# the project promises to work on, oldest first.
guest_release=bookworm
# shellcheck disable=SC2034 # read by the scripts that source this file
all_kernels=(5.10 6.1 6.12 6.18 7)

# arch_of KERNEL and series_of KERNEL take its name apart: it is a series, and for
# another processor than amd64 that one's name as well (6.12-arm64).
arch_of() { case $1 in *-*) echo "${1#*-}" ;; *) echo amd64 ;; esac }
series_of() { echo "${1%%-*}"; }

say() { printf '[%s] %s\n' "${0##*/}" "$*" >&2; }
die() {
	say "$*"
	exit "${die_status:-1}"
}

# usage prints the comment at the head of the calling script.
usage() { sed -n '/^# Usage/,/^[^#]/s/^# \{0,1\}//p' "$0"; }

# with_lock NAME CMD... runs CMD while no other process holds the lock NAME.
# The lock lives on a file descriptor of a subshell, so the kernel drops it
# however that subshell ends.
with_lock() {
	local name=$1
	shift
	mkdir -p "$cache_dir/lock"
	(
		if ! flock -n 9; then
			say "waiting for another run that prepares $name"
			flock 9
		fi
		"$@"
	) 9>"$cache_dir/lock/$name"
}

# debian_sites prints "URI RELEASE" for each Debian archive that apt on this
# machine is configured with. XFRMSCOPE_DEBIAN_MIRROR stands in for them where
# the machine is not a Debian one.
debian_sites() {
	if [ -n "${XFRMSCOPE_DEBIAN_MIRROR:-}" ]; then
		echo "${XFRMSCOPE_DEBIAN_MIRROR%/} $guest_release"
		return
	fi
	# shellcheck source=/dev/null
	if [ "$(. /etc/os-release && echo "$ID")" != debian ]; then
		die "this machine is not Debian: name a Debian archive in XFRMSCOPE_DEBIAN_MIRROR"
	fi
	# shellcheck disable=SC2016 # apt's variables, not ours
	# --no-release-info also lists archives that were never downloaded.
	apt-get indextargets --no-release-info \
		--format '$(SITE) $(RELEASE)' 'Created-By: Packages' | sort -u
}

# site_of RELEASE prints the archive that holds RELEASE: security updates live
# in an archive of their own.
site_of() {
	local sites site
	sites=$(debian_sites)
	case $1 in
	*-security)
		site=$(awk '$2 ~ /-security$/ {print $1; exit}' <<<"$sites")
		[ -n "$site" ] || site=$(site_of "$guest_release")-security
		;;
	*) site=$(awk '$2 ~ /^[a-z]+$/ {print $1; exit}' <<<"$sites") ;;
	esac
	[ -n "$site" ] || die "found no Debian archive in apt's sources: name one in XFRMSCOPE_DEBIAN_MIRROR"
	echo "${site%/}"
}

# hash_of FILE... prints one checksum of the files' contents.
hash_of() { cat "$@" | sha256sum | cut -c 1-16; }

# apt_tree ARCH NAME RELEASE... writes a private apt tree with these releases as its
# only sources and an empty package status, and prints its configuration file,
# to be given to apt as APT_CONFIG. Of the machine's configuration it keeps the
# Acquire settings (proxies, timeouts, credentials), not the hooks.
apt_tree() {
	local arch=$1 dir=$cache_dir/apt/$2-$1 release
	local keys=/usr/share/keyrings/debian-archive-keyring.gpg
	shift 2
	[ -r "$keys" ] || die "$keys is missing: run scripts/deps vm"
	mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial" "$dir/none"
	: >"$dir/status"
	: >"$dir/sources.new"
	for release; do
		echo "deb [arch=$arch signed-by=$keys] $(site_of "$release") $release main" >>"$dir/sources.new"
	done
	mv "$dir/sources.new" "$dir/sources.list"
	{
		apt-config dump | grep -E '^Acquire::' | grep -vE '^Acquire::(IndexTargets|Languages|Changelogs)' || true
		cat <<-CONF
			Acquire::Languages "none";
			Acquire::Check-Valid-Until "false";
			APT::Architecture "$arch";
			APT::Architectures "$arch";
			APT::Install-Recommends "false";
			APT::Sandbox::User "root";
			Dir::State "$dir";
			Dir::State::lists "$dir/lists";
			Dir::State::status "$dir/status";
			Dir::Cache "$dir/cache";
			Dir::Cache::archives "$dir/cache/archives";
			Dir::Etc::sourcelist "$dir/sources.list";
			Dir::Etc::sourceparts "$dir/none";
			Dir::Etc::parts "$dir/none";
			Dir::Etc::preferences "$dir/none/none";
			Dir::Etc::preferencesparts "$dir/none";
			Dir::Log "$dir";
		CONF
	} >"$dir/apt.conf"
	echo "$dir/apt.conf"
}

# apt_update CONF fetches the package lists if the sources changed or the lists
# are older than a day.
apt_update() {
	local conf=$1 dir=${1%/*}
	if cmp -s "$dir/sources.list" "$dir/updated" && [ -n "$(find "$dir/updated" -mmin -1440)" ]; then
		return
	fi
	APT_CONFIG=$conf apt_quiet update
	cp "$dir/sources.list" "$dir/updated"
}

# apt_quiet runs apt-get and shows its output only if it fails.
apt_quiet() {
	local log
	log=$(mktemp)
	if ! DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Acquire::Retries=3 "$@" >"$log" 2>&1; then
		tail -n 20 "$log" >&2
		rm -f "$log"
		die "apt-get $1 failed: see the lines above"
	fi
	rm -f "$log"
}
