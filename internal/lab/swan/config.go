// SPDX-License-Identifier: Apache-2.0

package swan

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"text/template"
	"time"
)

// Options are what scenarios differ in. The zero value never rekeys by itself, never asks whether the
// peer is alive, and gives up a request after 3 retransmissions, 2 s apart.
type Options struct {
	DPDDelay   time.Duration // 0 never
	ChildRekey time.Duration // soft lifetime of a CHILD_SA, 0 none
	ChildLife  time.Duration // hard lifetime of a CHILD_SA, 0 none
	Timeout    time.Duration // of a request until it is sent again
	Tries      int           // how often a request is sent again
}

func (o Options) normalize() Options {
	if o.Timeout == 0 {
		o.Timeout = 2 * time.Second
	}
	if o.Tries == 0 {
		o.Tries = 3
	}
	return o
}

// functions print durations as strongSwan's configuration wants them.
var functions = template.FuncMap{
	"seconds": func(d time.Duration) string { return fmt.Sprintf("%g", d.Seconds()) },
}

// daemonConfig loads what IKE with a pre-shared key needs. The lab has its own routes, so the daemon
// makes none.
var daemonConfig = template.Must(template.New("strongswan.conf").Funcs(functions).Parse(`
charon-systemd {
  load = random nonce aes sha1 sha2 hmac kdf gcm curve25519 pem pkcs1 x509 pubkey kernel-netlink socket-default vici
  install_routes = no
  delete_rekeyed_delay = 1
  retransmit_timeout = {{seconds .Options.Timeout}}
  retransmit_base = 1.0
  retransmit_tries = {{.Options.Tries}}
  plugins {
    vici {
      socket = unix://{{.Dir}}/vici
    }
  }
  filelog {
    file {
      path = {{.Dir}}/log
      flush_line = yes
      time_format = %H:%M:%S
      time_add_ms = yes
      default = 1
    }
  }
}
swanctl {
  load = random nonce pem pkcs1 x509 pubkey
}
`))

var connectionConfig = template.Must(template.New("swanctl.conf").Funcs(functions).Parse(`
connections {
  site {
    version = 2
    local_addrs = {{.Own.Outer}}
    remote_addrs = {{if eq .Own.ID "gw-a"}}{{.Other.Outer}}{{else}}%any{{end}}
    proposals = aes128-sha256-curve25519
    mobike = no
    rekey_time = 0
    dpd_delay = {{seconds .Options.DPDDelay}}
    local {
      auth = psk
      id = {{.Own.ID}}
    }
    remote {
      auth = psk
      id = {{.Other.ID}}
    }
    children {
      net {
        local_ts = {{.OwnNet}}
        remote_ts = {{.OtherNet}}
        esp_proposals = aes128gcm16
        rekey_time = {{seconds .Options.ChildRekey}}
        life_time = {{seconds .Options.ChildLife}}
        rand_time = 0
        dpd_action = none
      }
    }
  }
}
secrets {
  ike-lab {
    id-a = gw-a
    id-b = gw-b
    secret = "{{.Secret}}"
  }
}
`))

// write puts a configuration file where only root reads it.
func (p *Peer) write(name string, text *template.Template, data any) error {
	var out bytes.Buffer
	if err := text.Execute(&out, data); err != nil {
		return fmt.Errorf("write %s of %s: %w", name, p.ID, err)
	}
	return os.WriteFile(filepath.Join(p.dir, name), out.Bytes(), 0o600)
}
