package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
)

// routeProtocol marks the routes of this agent in the kernel's table, so that
// routes of nodes that are gone can be told from everybody else's. The number
// is unassigned in iproute2's rt_protos.
const routeProtocol = 0x6b

// cniConfiguration chains the plugins that Debian packages: ptp gives each pod
// a veth whose other end the node routes (a /32 per pod, no bridge: every
// packet passes the node's forward hook, where NetworkPolicy is enforced).
const cniConfiguration = `{
  "cniVersion": "0.4.0",
  "name": "pod-network",
  "plugins": [
    {
      "type": "ptp",
      "ipMasq": false,
      "mtu": %d,
      "ipam": {
        "type": "host-local",
        "dataDir": "/run/cni-ipam-state",
        "routes": [{ "dst": "0.0.0.0/0" }],
        "ranges": [[{ "subnet": "%s" }]]
      }
    },
    { "type": "portmap", "capabilities": { "portMappings": true } }
  ]
}
`

type router struct {
	settings settings
}

// apply writes the CNI configuration once the node has a podCIDR and makes the
// routes to the pods of the other nodes.
func (r *router) apply(lister corelisters.NodeLister) error {
	nodes, err := lister.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("listing nodes: %w", err)
	}
	var problems []error
	wanted := map[string]net.IP{}
	for _, node := range nodes {
		if node.Name == r.settings.nodeName {
			if err := r.writeConfiguration(node); err != nil {
				problems = append(problems, err)
			}
			continue
		}
		address := internalAddress(node)
		for _, cidr := range podRanges(node) {
			if address != nil {
				wanted[cidr.String()] = address
			}
		}
	}
	problems = append(problems, setRoutes(wanted))
	return errors.Join(problems...)
}

func (r *router) writeConfiguration(node *v1.Node) error {
	ranges := podRanges(node)
	if len(ranges) == 0 {
		return fmt.Errorf("node %s has no IPv4 podCIDR yet", node.Name)
	}
	mtu, err := defaultRouteMTU()
	if err != nil {
		return err
	}
	path := filepath.Join(r.settings.cniDirectory, "10-pod-network.conflist")
	content := []byte(fmt.Sprintf(cniConfiguration, mtu, ranges[0]))
	if present, err := os.ReadFile(path); err == nil && string(present) == string(content) {
		return nil
	}
	// containerd watches the directory: rename, so that it never reads half.
	temporary := path + ".new"
	if err := os.WriteFile(temporary, content, 0o644); err != nil {
		return fmt.Errorf("writing the CNI configuration: %w", err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return fmt.Errorf("putting the CNI configuration in place: %w", err)
	}
	fmt.Printf("pod-network: wrote %s for %s (MTU %d)\n", path, ranges[0], mtu)
	return nil
}

// setRoutes makes the kernel's routes with our mark equal to wanted
// (pod range -> address of its node).
func setRoutes(wanted map[string]net.IP) error {
	present, err := netlink.RouteListFiltered(netlink.FAMILY_V4,
		&netlink.Route{Protocol: routeProtocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return fmt.Errorf("reading the node's routes: %w", err)
	}
	var problems []error
	for _, route := range present {
		if route.Dst == nil {
			continue
		}
		gateway, keep := wanted[route.Dst.String()]
		if keep && gateway.Equal(route.Gw) {
			delete(wanted, route.Dst.String())
		} else if !keep {
			if err := netlink.RouteDel(&route); err != nil && !errors.Is(err, unix.ESRCH) {
				problems = append(problems, fmt.Errorf("removing the route to %s: %w", route.Dst, err))
			}
		}
	}
	for cidr, gateway := range wanted {
		_, destination, err := net.ParseCIDR(cidr)
		if err != nil {
			continue
		}
		route := netlink.Route{Dst: destination, Gw: gateway, Protocol: routeProtocol}
		if err := netlink.RouteReplace(&route); err != nil {
			problems = append(problems, fmt.Errorf("adding the route to %s by %s: %w", cidr, gateway, err))
			continue
		}
		fmt.Printf("pod-network: route to %s by %s\n", cidr, gateway)
	}
	return errors.Join(problems...)
}

// defaultRouteMTU is the MTU of the interface towards the other nodes: pods must
// not send more than fits there.
func defaultRouteMTU() (int, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return 0, fmt.Errorf("looking for the node's default route: %w", err)
	}
	for _, route := range routes {
		if route.Dst != nil && !route.Dst.IP.IsUnspecified() {
			continue
		}
		if link, err := netlink.LinkByIndex(route.LinkIndex); err == nil {
			return link.Attrs().MTU, nil
		}
	}
	return 1500, nil
}

func internalAddress(node *v1.Node) net.IP {
	for _, address := range node.Status.Addresses {
		if ip := net.ParseIP(address.Address).To4(); ip != nil && address.Type == v1.NodeInternalIP {
			return ip
		}
	}
	return nil
}

func podRanges(node *v1.Node) []*net.IPNet {
	var ranges []*net.IPNet
	for _, cidr := range append([]string{node.Spec.PodCIDR}, node.Spec.PodCIDRs...) {
		_, parsed, err := net.ParseCIDR(cidr)
		if err != nil || parsed.IP.To4() == nil {
			continue
		}
		if len(ranges) == 0 || ranges[0].String() != parsed.String() {
			ranges = append(ranges, parsed)
		}
	}
	return ranges
}
