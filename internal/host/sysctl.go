// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// The kernel shows these trees as the reading thread's namespace has them.
const (
	procSys = "/proc/sys"
	procNet = "/proc/thread-self/net"
)

// sysctls are the settings that decide what becomes of IPsec traffic. A * stands for one component.
var sysctls = []string{
	"net/ipv4/ip_forward",
	"net/ipv4/conf/*/rp_filter",
	"net/ipv4/conf/*/disable_xfrm",
	"net/ipv4/conf/*/disable_policy",
	"net/ipv4/conf/*/forwarding",
	"net/ipv4/conf/*/send_redirects",
	"net/ipv4/ip_no_pmtu_disc",
	"net/ipv4/ip_forward_use_pmtu",
	"net/ipv4/route/min_pmtu",
	"net/ipv4/route/mtu_expires",
	"net/ipv4/icmp_ratelimit",
	"net/ipv4/icmp_ratemask",
	"net/ipv4/ipfrag_high_thresh",
	"net/ipv4/ipfrag_low_thresh",
	"net/ipv4/ipfrag_time",
	"net/ipv4/ipfrag_max_dist",
	"net/ipv4/tcp_mtu_probing",
	"net/ipv4/tcp_base_mss",
	"net/ipv4/tcp_min_snd_mss",
	"net/ipv4/tcp_rmem",
	"net/ipv4/tcp_wmem",
	"net/ipv4/tcp_window_scaling",
	"net/ipv4/tcp_moderate_rcvbuf",
	"net/ipv4/tcp_ecn",
	"net/ipv4/tcp_sack",
	"net/ipv4/tcp_congestion_control",
	"net/ipv4/udp_rmem_min",
	"net/ipv4/xfrm4_gc_thresh",
	"net/ipv6/conf/*/forwarding",
	"net/ipv6/conf/*/mtu",
	"net/ipv6/conf/*/disable_ipv6",
	"net/ipv6/icmp/ratelimit",
	"net/ipv6/ip6frag_high_thresh",
	"net/ipv6/ip6frag_low_thresh",
	"net/ipv6/ip6frag_time",
	"net/ipv6/route/mtu_expires",
	"net/ipv6/route/min_adv_mss",
	"net/ipv6/xfrm6_gc_thresh",
	"net/core/xfrm_acq_expires",
	"net/core/xfrm_larval_drop",
	"net/core/xfrm_aevent_etime",
	"net/core/xfrm_aevent_rseqth",
	"net/netfilter/nf_conntrack_udp_timeout",
	"net/netfilter/nf_conntrack_udp_timeout_stream",
	"net/netfilter/nf_conntrack_max",
	"net/netfilter/nf_conntrack_count",
}

// machineSysctls are those of net/core that older kernels show in the first namespace only, since
// they hold for the whole machine.
var machineSysctls = []string{
	"net/core/rmem_max",
	"net/core/rmem_default",
	"net/core/wmem_max",
	"net/core/wmem_default",
	"net/core/optmem_max",
	"net/core/netdev_max_backlog",
	"net/core/netdev_budget",
	"net/core/netdev_budget_usecs",
	"net/core/dev_weight",
	"net/core/default_qdisc",
	"net/core/flow_limit_cpu_bitmap",
	"net/core/rps_sock_flow_entries",
	"net/core/bpf_jit_enable",
}

// readSysctls reads what there is of these names. One that cannot be read is left out and told.
func readSysctls(root string, names []string) (map[string]string, error) {
	out := map[string]string{}
	var errs []error
	for _, name := range names {
		paths := []string{filepath.Join(root, name)}
		if strings.Contains(name, "*") {
			var err error
			if paths, err = filepath.Glob(paths[0]); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		for _, path := range paths {
			b, err := os.ReadFile(path)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				// A kernel without this setting.
			case err != nil:
				errs = append(errs, err)
			default:
				key, err := filepath.Rel(root, path)
				if err != nil {
					errs = append(errs, err)
					continue
				}
				out[key] = strings.Join(strings.Fields(string(b)), " ")
			}
		}
	}
	return out, errors.Join(errs...)
}
