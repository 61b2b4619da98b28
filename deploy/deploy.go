// SPDX-License-Identifier: Apache-2.0

// Package deploy holds what goes with xfrmscope where it runs for good: rules and alerts for Prometheus and
// a dashboard for Grafana.
package deploy

import "embed"

// Files are the rules, the alerts and the dashboard.
//
//go:embed prometheus/*.yml grafana/*.json
var Files embed.FS
