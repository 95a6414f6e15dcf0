//! The `kube` crate's own runtime, as controllers that are written with it run on any cluster.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::runtime::controller::Action;
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{Controller, WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;

use super::kube_crate::{client, within};
use super::lab::Lab;

fn config_map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"key": value}})).unwrap()
}

/// Looks again until it holds; whoever waits bounds the time.
async fn until(mut holds: impl AsyncFnMut() -> bool) {
    while !holds().await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_reflector_mirrors_what_there_is() {
    let lab = Lab::start().await;
    let api: Api<ConfigMap> = Api::namespaced(client(&lab).await, "shop");
    api.create(&PostParams::default(), &config_map("first", "1")).await.unwrap();
    // By list and watch, and by a watch alone that begins with the list.
    for config in [watcher::Config::default().page_size(1), watcher::Config::default().streaming_lists()] {
        let (reader, writer) = reflector::store::<ConfigMap>();
        let stream = reflector::reflector(writer, watcher(api.clone(), config)).default_backoff();
        let following = tokio::spawn(stream.for_each(|_| std::future::ready(())));
        within(async {
            reader.wait_until_ready().await.unwrap();
            assert_eq!(reader.state().len(), 1, "complete as soon as it says so");
            api.create(&PostParams::default(), &config_map("second", "2")).await.unwrap();
            let second = ObjectRef::new("second").within("shop");
            until(async || reader.get(&second).is_some()).await;
            let change = Patch::Merge(json!({"data": {"key": "3"}}));
            let changed = api.patch("second", &PatchParams::default(), &change).await.unwrap();
            until(async || reader.get(&second).is_some_and(|map| map.resource_version() == changed.resource_version())).await;
            api.delete("second", &DeleteParams::default()).await.unwrap();
            until(async || reader.get(&second).is_none()).await;
        })
        .await;
        following.abort();
    }
}

/// What the controller below keeps: a Secret for each ConfigMap, owned by it.
async fn keep_secret(map: Arc<ConfigMap>, client: Arc<Client>) -> Result<Action, kube::Error> {
    let secrets: Api<Secret> = Api::namespaced((*client).clone(), "shop");
    let owner = map.controller_owner_ref(&()).unwrap();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": map.name_any(), "ownerReferences": [owner]},
        "stringData": {"copy": map.data.as_ref().and_then(|data| data.get("key"))}});
    secrets.patch(&map.name_any(), &PatchParams::apply("keeper").force(), &Patch::Apply(secret)).await?;
    Ok(Action::await_change())
}

#[tokio::test]
async fn a_controller_is_called_for_its_objects_and_for_those_they_own() {
    let lab = Lab::start().await;
    let client = client(&lab).await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "shop");
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "shop");
    maps.create(&PostParams::default(), &config_map("before", "1")).await.unwrap();
    let controller = Controller::new(maps.clone(), watcher::Config::default()).owns(secrets.clone(), watcher::Config::default()).run(
        keep_secret,
        |_, _, _| Action::requeue(Duration::from_millis(50)),
        Arc::new(client.clone()),
    );
    let running = tokio::spawn(controller.for_each(|_| std::future::ready(())));
    let copy = async |name: &str| -> Option<String> {
        let data = secrets.get_opt(name).await.unwrap()?.data?;
        data.get("copy").map(|value| String::from_utf8(value.0.clone()).unwrap())
    };
    within(async {
        until(async || copy("before").await.as_deref() == Some("1")).await;
        maps.create(&PostParams::default(), &config_map("after", "2")).await.unwrap();
        until(async || copy("after").await.as_deref() == Some("2")).await;
        maps.patch("after", &PatchParams::default(), &Patch::Merge(json!({"data": {"key": "3"}}))).await.unwrap();
        until(async || copy("after").await.as_deref() == Some("3")).await;
        // Nothing happens to the ConfigMap here: the watch of what it owns tells the controller.
        let uid = secrets.get("after").await.unwrap().uid();
        secrets.delete("after", &DeleteParams::default()).await.unwrap();
        until(async || secrets.get_opt("after").await.unwrap().is_some_and(|secret| secret.uid() != uid)).await;
        let spoilt = Patch::Merge(json!({"stringData": {"copy": "spoilt"}}));
        secrets.patch("before", &PatchParams::default(), &spoilt).await.unwrap();
        until(async || copy("before").await.as_deref() == Some("1")).await;
    })
    .await;
    running.abort();
}

#[tokio::test]
async fn conditions_are_awaited() {
    let lab = Lab::start().await;
    let client = client(&lab).await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "shop");
    let waiting = tokio::spawn(await_condition(pods.clone(), "late", conditions::is_pod_running()));
    let pod = json!({"metadata": {"name": "late"}, "spec": {"containers": [{"name": "app", "image": "web:1"}]}});
    within(async {
        let created = pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!waiting.is_finished(), "it does not run yet");
        pods.patch_status("late", &PatchParams::default(), &Patch::Merge(json!({"status": {"phase": "Running"}}))).await.unwrap();
        let running = waiting.await.unwrap().unwrap().unwrap();
        assert_eq!(running.uid(), created.uid());
        let uid = created.uid().unwrap();
        let gone = tokio::spawn({
            let (pods, uid) = (pods.clone(), uid.clone());
            async move { await_condition(pods, "late", conditions::is_deleted(&uid)).await.map(drop) }
        });
        pods.delete("late", &DeleteParams::default().grace_period(0)).await.unwrap();
        gone.await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_kind_of_ones_own_is_served_once_it_is_established() {
    let lab = Lab::start().await;
    let client = client(&lab).await;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "tills.shop.example"},
        "spec": {"group": "shop.example", "scope": "Namespaced", "names": {"plural": "tills", "singular": "till", "kind": "Till"},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"float": {"type": "integer", "minimum": 0}}},
                    "status": {"type": "object", "properties": {"open": {"type": "boolean"}}}}}}}]}});
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("shop.example", "v1", "Till"));
    let tills: Api<DynamicObject> = Api::namespaced_with(client.clone(), "shop", &kind);
    within(async {
        let apply = PatchParams::apply("test");
        definitions.patch("tills.shop.example", &apply, &Patch::Apply(definition)).await.unwrap();
        let established = await_condition(definitions.clone(), "tills.shop.example", conditions::is_crd_established());
        assert!(established.await.unwrap().is_some());
        let mut events = std::pin::pin!(watcher(tills.clone(), watcher::Config::default()).touched_objects());
        let till = json!({"apiVersion": "shop.example/v1", "kind": "Till", "metadata": {"name": "one"}, "spec": {"float": 100}});
        tills.patch("one", &apply, &Patch::Apply(till)).await.unwrap();
        assert_eq!(events.next().await.unwrap().unwrap().data["spec"]["float"], 100);
        tills.patch_status("one", &PatchParams::default(), &Patch::Merge(json!({"status": {"open": true}}))).await.unwrap();
        assert_eq!(events.next().await.unwrap().unwrap().data["status"]["open"], true);
        let kube::Error::Api(refused) =
            tills.patch("one", &PatchParams::default(), &Patch::Merge(json!({"spec": {"float": -1}}))).await.unwrap_err()
        else {
            panic!("not refused by the server")
        };
        assert_eq!(refused.code, 422);
    })
    .await;
}
