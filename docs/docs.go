// SPDX-License-Identifier: Apache-2.0

// Package docs holds the published JSON Schemas, for tests that run where the sources are not.
package docs

import "embed"

// Schemas are the files by their names in this folder.
//
//go:embed *.json
var Schemas embed.FS
