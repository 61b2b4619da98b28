// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"os"
	"strings"
)

// Confinement is something around the process, and not of it, that may forbid what its capabilities allow.
type Confinement struct {
	Name string `json:"name"`
	Does string `json:"does"`   // what it forbids, or may forbid
	Do   string `json:"remedy"` // what to do about it
}

// Confinements lists what confines this process, read below root ("" for the real /proc and /sys).
func Confinements(root string) []Confinement {
	var out []Confinement
	if c := userNamespace(root); c != nil {
		out = append(out, *c)
	}
	if strings.Contains(read(root+"/proc/self/status"), "\nSeccomp:\t2") {
		out = append(out, Confinement{
			Name: "a seccomp filter",
			Does: "may forbid bpf(2) and perf_event_open(2)",
			Do:   "where hooks are refused: docker run --security-opt seccomp=unconfined, seccompProfile: Unconfined in Kubernetes, SystemCallFilter=@system-service bpf perf_event_open in systemd",
		})
	}
	// The mode in force stands in brackets (security/lockdown/lockdown.c).
	for _, mode := range []string{"integrity", "confidentiality"} {
		if !strings.Contains(read(root+"/sys/kernel/security/lockdown"), "["+mode+"]") {
			continue
		}
		c := Confinement{Name: "kernel lockdown: " + mode, Does: "forbids nothing that is needed", Do: "nothing"}
		if mode == "confidentiality" {
			c.Does = "forbids programs to read the kernel's memory: only the hooks on the wire hold"
			c.Do = "boot with lockdown=integrity, or without Secure Boot"
		}
		out = append(out, c)
	}
	return out
}

// userNamespace tells a user namespace other than the first by its map of user IDs, which there covers
// all of them one to one (user_namespaces(7)). The capabilities of another count for what belongs to it
// alone; bpf_capable() asks for those of the first.
func userNamespace(root string) *Confinement {
	uids := strings.Fields(read(root + "/proc/self/uid_map"))
	if len(uids) == 0 || strings.Join(uids, " ") == "0 0 4294967295" {
		return nil
	}
	return &Confinement{
		Name: "a user namespace (rootless or remapped container)",
		Does: "makes its capabilities worthless for BPF: the kernel asks for those of the first user namespace",
		Do:   "run on the host, or in a container without user namespace: podman as root, docker run --userns=host, hostUsers: true in Kubernetes",
	}
}

// unconfined is nil where the capabilities that the process has can count.
func unconfined() error {
	if c := userNamespace(""); c != nil {
		return fmt.Errorf("%w: in %s no capability counts for BPF: %s", ErrCapability, c.Name, c.Do)
	}
	return nil
}

// read is a small file's content; empty where it cannot be read.
func read(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(data)
}
