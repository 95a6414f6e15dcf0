use std::sync::Arc;

use futures::{FutureExt, StreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service};
use serde_json::{Value, json};

use super::*;

fn config_map(name: &str) -> Value {
    json!({"metadata": {"name": name}})
}

fn create(store: &Store, name: &str) -> Arc<Value> {
    store.create(&Resource::of::<ConfigMap>(), Some("shop"), config_map(name)).unwrap()
}

fn touch(store: &Store, name: &str, value: i64) -> Result<Arc<Value>, Fault> {
    store.modify(&Resource::of::<ConfigMap>(), Some("shop"), name, |object| {
        object["data"]["n"] = value.to_string().into();
        Ok(())
    })
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

#[test]
fn versions_grow_with_every_change_and_only_then() {
    let store = Store::default();
    assert_eq!(create(&store, "a")["metadata"]["resourceVersion"], "1");
    assert_eq!(touch(&store, "a", 1).unwrap()["metadata"]["resourceVersion"], "2");
    assert_eq!(touch(&store, "a", 1).unwrap()["metadata"]["resourceVersion"], "2", "nothing changed");
    assert_eq!(store.resource_version(), 2);
}

#[test]
fn a_stale_version_is_a_conflict() {
    let store = Store::default();
    create(&store, "a");
    touch(&store, "a", 1).unwrap();
    let fault = store
        .modify(&Resource::of::<ConfigMap>(), Some("shop"), "a", |object| {
            object["metadata"]["resourceVersion"] = "1".into();
            Ok(())
        })
        .unwrap_err();
    assert_eq!(fault.reason, Reason::Conflict);
    assert!(fault.message.starts_with("Operation cannot be fulfilled on configmaps \"a\": the object has been modified"));
}

#[test]
fn clients_cannot_change_what_is_the_systems() {
    let store = Store::default();
    let before = create(&store, "a");
    let after = store
        .modify(&Resource::of::<ConfigMap>(), Some("shop"), "a", |object| {
            for field in ["uid", "name", "creationTimestamp", "deletionTimestamp"] {
                object["metadata"][field] = "other".into();
            }
            object["data"]["x"] = "y".into();
            Ok(())
        })
        .unwrap();
    for field in ["uid", "name", "creationTimestamp", "deletionTimestamp"] {
        assert_eq!(after["metadata"][field], before["metadata"][field], "{field}");
    }
}

#[test]
fn generations_count_changes_of_the_spec() {
    let store = Store::default();
    let deployments = Resource::of::<Deployment>();
    let object = json!({"metadata": {"name": "web"}, "spec": {"replicas": 1}});
    store.create(&deployments, Some("shop"), object).unwrap();
    let generation = |field: &str, value: i64| {
        let changed = store.modify(&deployments, Some("shop"), "web", |object| {
            object[field]["replicas"] = value.into();
            Ok(())
        });
        changed.unwrap()["metadata"]["generation"].as_i64().unwrap()
    };
    assert_eq!(generation("status", 1), 1);
    assert_eq!(generation("spec", 2), 2);
}

#[tokio::test]
async fn watches_begin_anywhere_and_see_each_change_once() {
    let store = Store::default();
    let resource = Resource::of::<ConfigMap>();
    create(&store, "a");
    create(&store, "b");
    touch(&store, "a", 1).unwrap();
    let mut all = Box::pin(store.watch(&resource, WatchStart::FromNothing).unwrap());
    let mut later = Box::pin(store.watch(&resource, WatchStart::After(1)).unwrap());
    store.delete(&resource, Some("shop"), "b", &DeleteOptions::default()).unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(all.next().await.unwrap().unwrap());
    }
    assert!(matches!(&seen[..], [WatchEvent::Added(a), WatchEvent::Added(b), WatchEvent::Deleted(c)]
        if name(a) == "a" && a["data"]["n"] == "1" && name(b) == "b" && name(c) == "b"));
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(later.next().await.unwrap().unwrap());
    }
    assert!(matches!(&seen[..], [WatchEvent::Added(a), WatchEvent::Modified(b), WatchEvent::Deleted(c)]
        if name(a) == "b" && name(b) == "a" && name(c) == "b"));
    assert!(all.next().now_or_never().is_none(), "no more changes");
}

#[tokio::test]
async fn writes_of_other_resources_do_not_reach_a_watch() {
    let store = Store::default();
    let mut watch = Box::pin(store.watch(&Resource::of::<Pod>(), WatchStart::FromNothing).unwrap());
    create(&store, "a");
    assert!(watch.next().now_or_never().is_none());
}

#[tokio::test]
async fn a_watch_that_falls_behind_is_told_and_typed_ones_begin_anew() {
    let store = Store::default();
    let resource = Resource::of::<ConfigMap>();
    create(&store, "a");
    let mut slow = Box::pin(store.watch(&resource, WatchStart::After(1)).unwrap());
    let typed: Typed<ConfigMap> = Typed::new(&store);
    let mut anew = Box::pin(typed.watch());
    assert!(matches!(anew.next().await, Some(Event::Applied(_))));
    for n in 0..3000 {
        touch(&store, "a", n).unwrap();
    }
    assert_eq!(slow.next().await.unwrap().unwrap_err().reason, Reason::Expired);
    assert!(slow.next().await.is_none());
    assert!(matches!(store.watch(&resource, WatchStart::After(1)), Err(Fault { reason: Reason::Expired, .. })));
    let Some(Event::Applied(object)) = anew.next().await else { panic!("no event") };
    assert_eq!(object.data.as_ref().unwrap()["n"], "2999");
}

#[test]
fn bound_pods_get_their_grace_period_and_others_go_at_once() {
    let store = Store::default();
    let pods = Resource::of::<Pod>();
    let pod = |name: &str, node: Option<&str>| json!({"metadata": {"name": name}, "spec": {"nodeName": node, "terminationGracePeriodSeconds": 20}});
    store.create(&pods, Some("shop"), pod("bound", Some("n1"))).unwrap();
    store.create(&pods, Some("shop"), pod("pending", None)).unwrap();
    let delete = |name: &str, seconds: Option<i64>| {
        let options = DeleteOptions { grace_period_seconds: seconds, ..DeleteOptions::default() };
        store.delete(&pods, Some("shop"), name, &options).unwrap()
    };
    assert!(delete("pending", None).1);
    let (marked, gone) = delete("bound", None);
    assert_eq!((gone, &marked["metadata"]["deletionGracePeriodSeconds"]), (false, &json!(20)));
    let (again, gone) = delete("bound", None);
    assert_eq!((gone, again), (false, marked), "deleting again changes nothing");
    let (sooner, _) = delete("bound", Some(5));
    assert_eq!(sooner["metadata"]["deletionGracePeriodSeconds"], 5);
    assert!(delete("bound", Some(0)).1);
    assert!(store.get(&pods, Some("shop"), "bound").is_err());
}

#[test]
fn finalizers_hold_an_object_until_the_last_is_gone() {
    let store = Store::default();
    let resource = Resource::of::<ConfigMap>();
    let mut object = config_map("a");
    object["metadata"]["finalizers"] = json!(["x/one"]);
    store.create(&resource, Some("shop"), object).unwrap();
    let options = DeleteOptions { propagation_policy: Some("Foreground".to_owned()), ..DeleteOptions::default() };
    let (marked, gone) = store.delete(&resource, Some("shop"), "a", &options).unwrap();
    assert!(!gone);
    assert_eq!(marked["metadata"]["finalizers"], json!(["x/one", "foregroundDeletion"]));
    let remove = |finalizers: Value| {
        store.modify(&resource, Some("shop"), "a", |object| {
            object["metadata"]["finalizers"] = finalizers;
            Ok(())
        })
    };
    remove(json!(["x/one"])).unwrap();
    assert!(store.get(&resource, Some("shop"), "a").is_ok());
    remove(json!([])).unwrap();
    assert!(store.get(&resource, Some("shop"), "a").is_err());
}

#[test]
fn namespaces_wait_for_their_own_finalizer_and_take_nothing_new() {
    let store = Store::default();
    let namespaces = Resource::of::<Namespace>();
    store.create(&namespaces, None, config_map("shop")).unwrap();
    let (marked, gone) = store.delete(&namespaces, None, "shop", &DeleteOptions::default()).unwrap();
    assert!(!gone);
    assert_eq!(marked["status"]["phase"], "Terminating");
    let refused = store.create(&Resource::of::<ConfigMap>(), Some("shop"), config_map("late")).unwrap_err();
    assert_eq!(refused.reason, Reason::Forbidden);
    store
        .modify(&namespaces, None, "shop", |namespace| {
            namespace["spec"]["finalizers"] = json!([]);
            Ok(())
        })
        .unwrap();
    assert!(store.get(&namespaces, None, "shop").is_err());
}

#[test]
fn dry_runs_leave_no_trace() {
    let store = Store::default();
    let resource = Resource::of::<ConfigMap>();
    store.create_or_try(&resource, Some("shop"), config_map("a"), true).unwrap();
    assert!(store.get(&resource, Some("shop"), "a").is_err());
    create(&store, "a");
    store.delete_or_try(&resource, Some("shop"), "a", &DeleteOptions::default(), true).unwrap();
    assert_eq!(store.resource_version(), 1);
}

#[test]
fn services_never_share_an_address_or_node_port() {
    let store = Store::default();
    let services = Resource::of::<Service>();
    let service = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
    let mut taken = std::collections::BTreeSet::new();
    for n in 0..200 {
        let spec = json!({"type": "NodePort", "ports": [{"port": 80}]});
        let created = store.create(&services, Some("shop"), service(&format!("s{n}"), spec)).unwrap();
        assert!(taken.insert(created["spec"]["clusterIP"].to_string()));
        assert!(taken.insert(created["spec"]["ports"][0]["nodePort"].to_string()));
    }
    let given = json!({"clusterIP": "10.96.0.10", "ports": [{"port": 53}]});
    store.create(&services, Some("shop"), service("dns", given.clone())).unwrap();
    let refused = store.create(&services, Some("shop"), service("dns2", given)).unwrap_err();
    assert!(refused.message.contains("failed to allocate IP 10.96.0.10: provided IP is already allocated"), "{}", refused.message);
    let headless = store.create(&services, Some("shop"), service("h", json!({"clusterIP": "None"}))).unwrap();
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
}

#[test]
fn lists_are_of_one_namespace_or_all_in_order() {
    let store = Store::default();
    let resource = Resource::of::<ConfigMap>();
    for (namespace, name) in [("b", "x"), ("a", "z"), ("a", "y"), ("ab", "w")] {
        store.create(&resource, Some(namespace), config_map(name)).unwrap();
    }
    let names =
        |namespace: Option<&str>| -> Vec<String> { store.list(&resource, namespace).items.iter().map(|o| name(o).to_owned()).collect() };
    assert_eq!(names(Some("a")), ["y", "z"]);
    assert_eq!(names(None), ["y", "z", "w", "x"]);
}

#[test]
fn slices_are_found_by_their_service() {
    let store = Store::default();
    let slices = Resource::of::<k8s_openapi::api::discovery::v1::EndpointSlice>();
    let slice = |name: &str, service: &str| {
        let metadata = json!({"name": name, "labels": {"kubernetes.io/service-name": service}});
        json!({"metadata": metadata, "addressType": "IPv4", "endpoints": []})
    };
    for (namespace, name, service) in [("a", "1", "web"), ("a", "2", "web"), ("a", "3", "db"), ("b", "1", "web")] {
        store.create(&slices, Some(namespace), slice(name, service)).unwrap();
    }
    store.create(&slices, Some("a"), json!({"metadata": {"name": "bare"}, "addressType": "IPv4", "endpoints": []})).unwrap();
    let of = |namespace: &str, service: &str| -> Vec<String> {
        store.list_labelled(&slices, namespace, service).iter().map(|o| name(o).to_owned()).collect()
    };
    assert_eq!((of("a", "web"), of("a", "db"), of("b", "web")), (vec!["1".into(), "2".into()], vec!["3".into()], vec!["1".into()]));
    store
        .modify(&slices, Some("a"), "1", |slice| {
            slice["metadata"]["labels"]["kubernetes.io/service-name"] = "db".into();
            Ok(())
        })
        .unwrap();
    store.delete(&slices, Some("a"), "2", &DeleteOptions::default()).unwrap();
    assert_eq!((of("a", "web"), of("a", "db")), (vec![], vec!["1".to_owned(), "3".to_owned()]));
}
