// SPDX-License-Identifier: Apache-2.0

// Command xfrmscope tells the operator of a Linux IPsec gateway where the packets go.
package main

import (
	"os"

	"xfrmscope/internal/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr))
}
