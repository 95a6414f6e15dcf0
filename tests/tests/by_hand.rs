//! A trainee's loop with an unmodified kubectl: a broken lab is up, the evidence is looked at, the fault is repaired, and
//! `gatelab status` turns from red to green.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use gatelab_tests::{Home, skipped};

/// A lab that is taken down however its test ends.
struct Lab {
    home: Home,
    kubeconfig: PathBuf,
}

impl Lab {
    fn up(arguments: &[&str]) -> Self {
        let home = Home::new();
        let output = home.gatelab().arg("up").args(arguments).output().expect("gatelab starts");
        assert!(output.status.success(), "up: {}", String::from_utf8_lossy(&output.stderr));
        let kubeconfig = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        Self { home, kubeconfig }
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        let output = Command::new("kubectl").arg("--kubeconfig").arg(&self.kubeconfig).args(arguments).output().expect("kubectl starts");
        assert!(output.status.success(), "kubectl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn status(&self) -> Output {
        self.home.gatelab().arg("status").output().expect("gatelab starts")
    }

    /// Asks again until the gateway has taken up a change: red and green follow it, they do not come with it.
    fn turns(&self, colour: &str) {
        let wanted = if colour == "green" { Some(0) } else { Some(1) };
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let status = self.status();
            if status.status.code() == wanted {
                return;
            }
            assert!(Instant::now() < deadline, "not {colour}: {}", String::from_utf8_lossy(&status.stdout));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.home.gatelab().args(["down", "--all"]).output();
    }
}

/// kubectl is not needed to run labs, so a machine may lack it.
fn kubectl_is_missing() -> bool {
    let missing = Command::new("kubectl").args(["version", "--client"]).output().is_err();
    if missing {
        skipped("there is no kubectl on PATH");
    }
    missing
}

#[test]
fn a_wrong_target_port_is_found_and_repaired_with_kubectl() {
    if kubectl_is_missing() {
        return;
    }
    let lab = Lab::up(&["wrong-target-port", "--phase", "fault", "--gateway", "nginx"]);

    let broken = lab.status();
    assert_eq!(broken.status.code(), Some(1), "the lab is broken, and status says so by its exit code");
    let told = String::from_utf8_lossy(&broken.stdout).into_owned();
    assert!(told.contains("first failing hop: service -> pod"), "{told}");

    let pods = lab.kubectl(&["-n", "shop", "get", "pods", "-o", "wide"]);
    assert!(pods.contains("1/1") && pods.contains("Running"), "{pods}");
    let endpoints = lab.kubectl(&["-n", "shop", "get", "endpointslices", "-o", "jsonpath={.items[*].ports[*].port}"]);
    assert_eq!(endpoints, "8081");
    let log = lab.kubectl(&["-n", "gateway", "logs", "deployment/gateway"]);
    assert!(log.contains("connect() failed (111: Connection refused) while connecting to upstream"), "{log}");

    lab.kubectl(&["-n", "shop", "patch", "service", "shop", "-p", r#"{"spec":{"ports":[{"port":80,"targetPort":"http"}]}}"#]);
    lab.turns("green");
}

#[test]
fn objects_are_read_changed_and_deleted_as_in_any_cluster() {
    if kubectl_is_missing() {
        return;
    }
    let lab = Lab::up(&["selector-mismatch", "--gateway", "envoy"]);
    assert_eq!(lab.status().status.code(), Some(0));

    let yaml = lab.kubectl(&["-n", "shop", "get", "service", "shop", "-o", "yaml"]);
    assert!(yaml.contains("selector:\n    app: shop"), "{yaml}");
    let manifest = lab.home.path().join("service.yaml");
    std::fs::write(&manifest, yaml.replace("selector:\n    app: shop", "selector:\n    app: shopp")).expect("a file");
    lab.kubectl(&["apply", "-f", manifest.to_str().expect("UTF-8")]);
    lab.turns("red");
    let endpoints = lab.kubectl(&["-n", "shop", "get", "endpointslices", "-o", "jsonpath={.items[*].endpoints[*].addresses}"]);
    assert_eq!(endpoints, "", "a selector that matches nothing leaves no endpoint");

    lab.kubectl(&["-n", "shop", "delete", "service", "shop"]);
    let gone = Command::new("kubectl")
        .arg("--kubeconfig")
        .arg(&lab.kubeconfig)
        .args(["-n", "shop", "get", "service", "shop"])
        .output()
        .expect("kubectl starts");
    assert_eq!(String::from_utf8_lossy(&gone.stderr).trim(), r#"Error from server (NotFound): services "shop" not found"#);

    std::fs::write(&manifest, SERVICE).expect("a file");
    lab.kubectl(&["apply", "-f", manifest.to_str().expect("UTF-8")]);
    lab.turns("green");
}

const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: { name: shop, namespace: shop }
spec:
  selector: { app: shop }
  ports: [{ name: http, port: 80, targetPort: http }]
";
