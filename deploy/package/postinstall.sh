#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The service is installed, not started: `systemctl enable --now xfrmscope` does that.
set -e
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	systemctl try-restart xfrmscope.service || true
fi
