package main

import (
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// withPorts combines a match of addresses with every match of the ports.
func withPorts(match string, ports []networking.NetworkPolicyPort, owner *v1.Pod) []string {
	var result []string
	for _, port := range portMatches(ports, owner) {
		result = append(result, strings.TrimSpace(match+" "+port))
	}
	return result
}

// portMatches gives one nftables match per port; a single empty match when every
// port is meant; none for a name that no container port of the owner has.
func portMatches(ports []networking.NetworkPolicyPort, owner *v1.Pod) []string {
	if len(ports) == 0 {
		return []string{""}
	}
	var result []string
	for _, port := range ports {
		protocol := "tcp"
		if port.Protocol != nil {
			protocol = strings.ToLower(string(*port.Protocol))
		}
		switch {
		case port.Port == nil:
			result = append(result, "meta l4proto "+protocol)
		case port.Port.Type == intstr.String:
			for _, number := range numbersOf(port.Port.StrVal, protocol, owner) {
				result = append(result, fmt.Sprintf("%s dport %d", protocol, number))
			}
		case port.EndPort != nil:
			result = append(result, fmt.Sprintf("%s dport %d-%d", protocol, port.Port.IntVal, *port.EndPort))
		default:
			result = append(result, fmt.Sprintf("%s dport %d", protocol, port.Port.IntVal))
		}
	}
	return result
}

func numbersOf(name, protocol string, owner *v1.Pod) []int32 {
	if owner == nil {
		return nil
	}
	containers := owner.Spec.Containers
	for _, container := range owner.Spec.InitContainers {
		// Native sidecars keep running and may own a port.
		if container.RestartPolicy != nil && *container.RestartPolicy == v1.ContainerRestartPolicyAlways {
			containers = append(containers[:len(containers):len(containers)], container)
		}
	}
	var numbers []int32
	for _, container := range containers {
		for _, port := range container.Ports {
			own := strings.ToLower(string(port.Protocol))
			if port.Name == name && (own == protocol || (own == "" && protocol == "tcp")) {
				numbers = append(numbers, port.ContainerPort)
			}
		}
	}
	return numbers
}

func named(ports []networking.NetworkPolicyPort) []networking.NetworkPolicyPort {
	var result []networking.NetworkPolicyPort
	for _, port := range ports {
		if port.Port != nil && port.Port.Type == intstr.String {
			result = append(result, port)
		}
	}
	return result
}

func anyNamed(ports []networking.NetworkPolicyPort) bool { return len(named(ports)) > 0 }
