//! Permissions as kubectl shows and meets them. The expected words are kube-apiserver 1.34's own.

use super::kubectl::Kubectl;

async fn with_robot() -> Option<Kubectl> {
    let kubectl = Kubectl::new().await?;
    kubectl.ok("create serviceaccount robot -n shop").await;
    kubectl.ok("create role reader -n shop --verb=get,list --resource=pods,roles").await;
    kubectl.ok("create rolebinding reader -n shop --role=reader --serviceaccount=shop:robot").await;
    Some(kubectl)
}

const ROBOT: &str = "--as=system:serviceaccount:shop:robot";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_rule_allows_is_forbidden_in_kubernetes_words() {
    let Some(kubectl) = with_robot().await else { return };
    let token = kubectl.ok("create token robot -n shop").await;
    let as_robot = format!("--token={} --server={} --insecure-skip-tls-verify --kubeconfig=/dev/null", token.trim(), kubectl.lab.server);
    assert_eq!(kubectl.run(&format!("get pods -n shop {as_robot}")).await.err, "No resources found in shop namespace.\n");
    let user = "User \"system:serviceaccount:shop:robot\"";
    for (command, expected) in [
        ("get pods", format!("pods is forbidden: {user} cannot list resource \"pods\" in API group \"\" in the namespace \"default\"")),
        ("get pods -A", format!("pods is forbidden: {user} cannot list resource \"pods\" in API group \"\" at the cluster scope")),
        (
            "get deploy web -n shop",
            format!(
                "deployments.apps \"web\" is forbidden: {user} cannot get resource \"deployments\" in API group \"apps\" in the namespace \"shop\""
            ),
        ),
        (
            "delete pod a -n shop",
            format!("pods \"a\" is forbidden: {user} cannot delete resource \"pods\" in API group \"\" in the namespace \"shop\""),
        ),
        ("get --raw /metrics", format!("forbidden: {user} cannot get path \"/metrics\"")),
        (
            "get --raw /apis/no.such/v1/things",
            format!("things.no.such is forbidden: {user} cannot list resource \"things\" in API group \"no.such\" at the cluster scope"),
        ),
        (
            "get pods -n shop --as=bob",
            format!("users \"bob\" is forbidden: {user} cannot impersonate resource \"users\" in API group \"\" at the cluster scope"),
        ),
    ] {
        let complaint = kubectl.refused(&format!("{command} {as_robot}")).await;
        assert_eq!(complaint, format!("Error from server (Forbidden): {expected}\n"), "{command}");
    }
    kubectl.ok("apply -f shop.yaml").await;
    let complaint = kubectl.refused(&format!("logs tools -n shop {as_robot}")).await;
    assert!(complaint.contains("cannot get resource \"pods/log\" in API group \"\" in the namespace \"shop\""), "{complaint}");
    let complaint = kubectl.refused(&format!("exec tools -n shop {as_robot} -- id")).await;
    assert!(complaint.contains("resource \"pods/exec\" in API group \"\" in the namespace \"shop\""), "{complaint}");
    kubectl.ok("delete serviceaccount robot -n shop").await;
    let complaint = kubectl.refused(&format!("get pods -n shop {as_robot}")).await;
    assert!(complaint.contains("Unauthorized"), "{complaint}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_about_permissions_are_answered() {
    let Some(kubectl) = with_robot().await else { return };
    assert_eq!(kubectl.ok("auth can-i delete nodes").await, "yes\n");
    assert_eq!(kubectl.ok(&format!("auth can-i list pods -n shop {ROBOT}")).await, "yes\n");
    let ran = kubectl.run(&format!("auth can-i list pods -n default {ROBOT}")).await;
    assert_eq!((ran.code, ran.out.as_str()), (1, "no\n"));
    let list = kubectl.ok(&format!("auth can-i --list -n shop {ROBOT}")).await;
    let rows: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(rows.contains(&vec!["pods", "[]", "[]", "[get", "list]"]), "{list}");
    assert!(rows.contains(&vec!["[/openapi/*]", "[]", "[get]"]), "{list}");
    let who = kubectl.ok(&format!("auth whoami {ROBOT}")).await;
    assert!(who.contains("[system:serviceaccounts system:serviceaccounts:shop system:authenticated]"), "{who}");
    // A binding to a role that is gone explains itself.
    kubectl.ok("delete role reader -n shop").await;
    let ran = kubectl.run(&format!("auth can-i list pods -n shop {ROBOT}")).await;
    assert_eq!(ran.out, "no - RBAC: role.rbac.authorization.k8s.io \"reader\" not found\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_grants_what_they_do_not_have() {
    let Some(kubectl) = with_robot().await else { return };
    kubectl.ok("create clusterrole maker --verb=create,update,get,patch --resource=roles,rolebindings").await;
    kubectl.ok("create rolebinding maker -n shop --clusterrole=maker --serviceaccount=shop:robot").await;
    kubectl.ok(&format!("create role less -n shop --verb=get --resource=pods {ROBOT}")).await;
    let complaint = kubectl.refused(&format!("create role more -n shop --verb=get,delete --resource=pods,secrets {ROBOT}")).await;
    let expected = "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"system:serviceaccount:shop:robot\" \
                    (groups=[\"system:serviceaccounts\" \"system:serviceaccounts:shop\" \"system:authenticated\"]) is attempting to grant \
                    RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}\n\
                    {APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"delete\"]}";
    assert!(complaint.contains(expected), "{complaint}");
    let patch = r#"'[{"op":"add","path":"/rules/0/verbs/-","value":"delete"}]'"#;
    let complaint = kubectl.refused(&format!("patch role less -n shop --type=json -p {patch} {ROBOT}")).await;
    assert!(complaint.contains("not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}"), "{complaint}");
    let complaint = kubectl.refused(&format!("create rolebinding all -n shop --clusterrole=cluster-admin --user=me {ROBOT}")).await;
    assert!(complaint.contains("{APIGroups:[\"*\"], Resources:[\"*\"], Verbs:[\"*\"]}"), "{complaint}");
    kubectl.ok("create role binder -n shop --verb=bind --resource=clusterroles").await;
    kubectl.ok("create rolebinding binder -n shop --role=binder --serviceaccount=shop:robot").await;
    kubectl.ok(&format!("create rolebinding all -n shop --clusterrole=cluster-admin --user=me {ROBOT}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn default_roles_are_made_of_others() {
    let Some(kubectl) = Kubectl::new().await else { return };
    kubectl.ok("create rolebinding jane -n shop --clusterrole=view --user=jane").await;
    assert_eq!(kubectl.ok("auth can-i get pods --subresource=log -n shop --as=jane").await, "yes\n");
    assert_eq!(kubectl.run("auth can-i get secrets -n shop --as=jane").await.out, "no\n");
    assert_eq!(kubectl.run("auth can-i create pods -n shop --as=jane").await.out, "no\n");
    kubectl.ok("create rolebinding joe -n shop --clusterrole=admin --user=joe").await;
    assert_eq!(kubectl.ok("auth can-i get secrets -n shop --as=joe").await, "yes\n");
    assert_eq!(kubectl.ok("auth can-i create pods --subresource=exec -n shop --as=joe").await, "yes\n");
    assert_eq!(kubectl.run("auth can-i create namespaces --as=joe").await.out.lines().last(), Some("no"));
    assert!(kubectl.ok("describe clusterrole view").await.contains("pods/log"));
}
