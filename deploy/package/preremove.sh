#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# dpkg calls this with "remove", rpm with the number of versions that stay.
set -e
case "$1" in
remove | 0)
	if [ -d /run/systemd/system ]; then
		systemctl disable --now xfrmscope.service || true
	fi
	;;
esac
