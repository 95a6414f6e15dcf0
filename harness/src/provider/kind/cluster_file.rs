//! What kind is told: the files in `kind-config/`, with labels that tell a lab's nodes from others.

use serde_json::{Value, json};

const ONE_NODE: &str = include_str!("../../../../kind-config/one-node.yaml");
const THREE_NODES: &str = include_str!("../../../../kind-config/three-nodes.yaml");
/// Label of every node; its value is the cluster's name.
pub const LABEL: &str = "gatelab.dev/lab";

/// The file for a cluster of so many nodes. One node is everything; of several the first is the control plane, which takes no
/// pods, as `kubeadm` leaves it.
pub fn cluster_file(name: &str, nodes: u32) -> Result<String, String> {
    let text = if nodes <= 1 { ONE_NODE } else { THREE_NODES };
    let mut file: Value = serde_saphyr::from_str(text).map_err(|error| format!("kind-config: {error}"))?;
    let list = file.get_mut("nodes").and_then(Value::as_array_mut).ok_or("kind-config: no nodes")?;
    list.resize(nodes.max(1) as usize, json!({ "role": "worker" }));
    for node in list {
        node["labels"] = json!({ LABEL: name });
    }
    // JSON is YAML.
    Ok(file.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_nodes_as_asked_for_and_all_have_the_label() {
        for nodes in [1, 2, 3, 5] {
            let file: Value = serde_json::from_str(&cluster_file("gatelab-x", nodes).unwrap()).unwrap();
            let list = file["nodes"].as_array().unwrap();
            assert_eq!(list.len(), nodes as usize);
            assert_eq!(list[0]["role"], "control-plane");
            assert!(list[1..].iter().all(|node| node["role"] == "worker"));
            assert!(list.iter().all(|node| node["labels"][LABEL] == "gatelab-x"));
            // A fixed port would let one lab stand in another's way.
            let mappings = list[0]["extraPortMappings"].as_array().unwrap();
            assert!(mappings.iter().all(|mapping| mapping["hostPort"] == 0 && mapping["listenAddress"] == "127.0.0.1"));
        }
    }
}
