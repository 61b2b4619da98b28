// SPDX-License-Identifier: Apache-2.0

// Package deploy_test holds what runs xfrmscope as a service against what xfrmscope is.
package deploy_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"xfrmscope/internal/cli"
	"xfrmscope/internal/kernel"
)

// wanted is what live observation needs, and CAP_SYSLOG for the names of the kernel's functions.
func wanted() []string {
	out := []string{"SYSLOG"}
	for _, c := range kernel.Needed {
		out = append(out, strings.TrimPrefix(c.Name, "CAP_"))
	}
	slices.Sort(out)
	return out
}

func TestUnit(t *testing.T) {
	unit := read(t, "systemd/xfrmscope.service")
	for _, key := range []string{"CapabilityBoundingSet", "AmbientCapabilities"} {
		m := regexp.MustCompile(`(?m)^` + key + `=(.*)$`).FindStringSubmatch(unit)
		if m == nil {
			t.Fatalf("no %s", key)
		}
		got := strings.Fields(strings.ReplaceAll(m[1], "CAP_", ""))
		slices.Sort(got)
		if diff := cmp.Diff(wanted(), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", key, diff)
		}
	}
	m := regexp.MustCompile(`(?m)^ExecStart=/usr/bin/xfrmscope (.*) \$XFRMSCOPE_OPTIONS$`).FindStringSubmatch(unit)
	if m == nil {
		t.Fatal("no ExecStart with options")
	}
	parses(t, strings.Fields(m[1]))
}

// object is what of a Kubernetes object this test looks at.
type object struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   struct{ Name, Namespace string }
	Spec       struct {
		Selector struct {
			MatchLabels map[string]string `yaml:"matchLabels"`
		}
		Template struct {
			Metadata struct{ Labels, Annotations map[string]string }
			Spec     struct {
				HostNetwork bool `yaml:"hostNetwork"`
				Containers  []struct {
					Args  []string
					Env   []struct{ Name, Value string }
					Ports []struct {
						Name          string
						ContainerPort int `yaml:"containerPort"`
					}
					SecurityContext struct {
						Privileged               bool
						AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
						ReadOnlyRootFilesystem   bool  `yaml:"readOnlyRootFilesystem"`
						Capabilities             struct{ Drop, Add []string }
					} `yaml:"securityContext"`
					StartupProbe   probe `yaml:"startupProbe"`
					ReadinessProbe probe `yaml:"readinessProbe"`
					LivenessProbe  probe `yaml:"livenessProbe"`
				}
			}
		}
	}
}

type probe struct {
	HTTPGet struct{ Path, Port string } `yaml:"httpGet"`
}

func TestDaemonSet(t *testing.T) {
	objects := map[string]object{}
	for d := yaml.NewDecoder(bytes.NewBufferString(read(t, "kubernetes/daemonset.yaml"))); ; {
		var o object
		switch err := d.Decode(&o); {
		case errors.Is(err, io.EOF):
		case err != nil:
			t.Fatal(err)
		default:
			objects[o.Kind] = o
			continue
		}
		break
	}
	set, ok := objects["DaemonSet"]
	if !ok || set.APIVersion != "apps/v1" || set.Metadata.Namespace != objects["Namespace"].Metadata.Name {
		t.Fatalf("objects: %+v", objects)
	}
	pod := set.Spec.Template
	if diff := cmp.Diff(set.Spec.Selector.MatchLabels, pod.Metadata.Labels); diff != "" {
		t.Errorf("the selector does not select the pods:\n%s", diff)
	}
	if !pod.Spec.HostNetwork || len(pod.Spec.Containers) != 1 {
		t.Fatalf("host network %t, %d containers", pod.Spec.HostNetwork, len(pod.Spec.Containers))
	}
	c := pod.Spec.Containers[0]
	s := c.SecurityContext
	if s.Privileged || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || !s.ReadOnlyRootFilesystem ||
		!slices.Equal(s.Capabilities.Drop, []string{"ALL"}) {
		t.Errorf("security context: %+v", s)
	}
	slices.Sort(s.Capabilities.Add)
	if diff := cmp.Diff(wanted(), s.Capabilities.Add); diff != "" {
		t.Errorf("capabilities (-want +got):\n%s", diff)
	}
	for name, p := range map[string]probe{"startup": c.StartupProbe, "readiness": c.ReadinessProbe, "liveness": c.LivenessProbe} {
		if p.HTTPGet.Port != "metrics" || p.HTTPGet.Path != "/-/ready" && p.HTTPGet.Path != "/-/healthy" {
			t.Errorf("%s probe: %+v", name, p)
		}
	}
	// Both have the same limit of memory, so the same holds of when to collect garbage.
	unit := read(t, "systemd/xfrmscope.service")
	for _, e := range c.Env {
		if e.Value != "" && !strings.Contains(unit, "\nEnvironment="+e.Name+"="+e.Value+"\n") {
			t.Errorf("the unit does not have %s=%s", e.Name, e.Value)
		}
	}
	found := parses(t, c.Args)
	listen := found.Flags().Lookup("listen")
	if listen == nil || !strings.HasSuffix(listen.DefValue, ":9477") || c.Ports[0].ContainerPort != 9477 ||
		!canListen(listen.Value.String()) || pod.Metadata.Annotations["prometheus.io/port"] != "9477" {
		t.Errorf("ports differ: default %v, container %d", listen, c.Ports[0].ContainerPort)
	}
}

// canListen says whether an address is one whatever the family of the node's is.
func canListen(address string) bool {
	for _, node := range []string{"192.0.2.1", "2001:db8::1"} {
		host, port, err := net.SplitHostPort(strings.ReplaceAll(address, "$(NODE_IP)", node))
		if err != nil || host != node || port != "9477" {
			return false
		}
	}
	return true
}

// parses finds the command of an argument list and lets it take its flags.
func parses(t *testing.T, args []string) *cobra.Command {
	t.Helper()
	found, rest, err := cli.Root().Find(args)
	if err != nil || found.Name() != "serve" {
		t.Fatalf("%q is no call of serve: %v", args, err)
	}
	if err := found.ParseFlags(rest); err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	return found
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
