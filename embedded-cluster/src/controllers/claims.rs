//! Says why a PersistentVolumeClaim stays Pending, as kube-controller-manager's persistentvolume-controller does: there
//! are no volumes in a lab.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;

use super::events::{Recorder, reference};
use super::objects::{Key, Objects};
use super::reconcile::{Outcome, Trigger, drive};
use crate::store::Store;

/// Runs for ever.
pub(super) async fn run(store: Store) {
    let claims: Objects<PersistentVolumeClaim> = Objects::new(&store);
    let classes: Objects<StorageClass> = Objects::new(&store);
    let recorder = Recorder::new(&store, "persistentvolume-controller", None);
    let triggers = vec![Trigger::itself(claims.resource())];
    drive(store, triggers, move |key| reconcile(&claims, &classes, &recorder, key)).await;
}

fn reconcile(claims: &Objects<PersistentVolumeClaim>, classes: &Objects<StorageClass>, recorder: &Recorder, key: &Key) -> Outcome {
    let Some(claim) = claims.get(&key.0, &key.1) else { return Outcome::Done };
    let is_pending = claim.status.as_ref().and_then(|status| status.phase.as_deref()).is_none_or(|phase| phase == "Pending");
    if !is_pending || claim.metadata.deletion_timestamp.is_some() {
        return Outcome::Done;
    }
    let about = reference(&*claim);
    let wanted = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref()).unwrap_or_default();
    match (wanted, classes.get("", wanted)) {
        ("", _) => {
            recorder.normal(&about, "FailedBinding", "no persistent volumes available for this claim and no storage class is set");
        }
        (name, None) => {
            recorder.warning(&about, "ProvisioningFailed", format!("storageclass.storage.k8s.io \"{name}\" not found"));
        }
        (_, Some(class)) if class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer") => {
            recorder.normal(&about, "WaitForFirstConsumer", "waiting for first consumer to be created before binding");
        }
        (_, Some(class)) => recorder.normal(
            &about,
            "ExternalProvisioning",
            format!(
                "Waiting for a volume to be created either by the external provisioner '{}' or manually by the system administrator. If volume \
                 creation is delayed, please verify that the provisioner is running and correctly registered.",
                class.provisioner
            ),
        ),
    }
    Outcome::Done
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Event;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_learns_why_it_waits() {
        let store = Store::default();
        let (claims, classes) = (Objects::<PersistentVolumeClaim>::new(&store), Objects::<StorageClass>::new(&store));
        let recorder = Recorder::new(&store, "persistentvolume-controller", None);
        let class = json!({"metadata": {"name": "fast"}, "provisioner": "csi.example", "volumeBindingMode": "Immediate"});
        classes.create("", &serde_json::from_value(class).unwrap()).unwrap();
        for (name, class) in [("none", None), ("unknown", Some("slow")), ("known", Some("fast"))] {
            let claim = json!({"metadata": {"name": name}, "spec": {"storageClassName": class}});
            claims.create("shop", &serde_json::from_value(claim).unwrap()).unwrap();
            reconcile(&claims, &classes, &recorder, &("shop".to_owned(), name.to_owned()));
        }
        let mut said: Vec<_> = Objects::<Event>::new(&store)
            .list(Some("shop"))
            .iter()
            .map(|event| (event.involved_object.name.clone().unwrap_or_default(), event.reason.clone().unwrap_or_default()))
            .collect();
        said.sort();
        let expected = [("known", "ExternalProvisioning"), ("none", "FailedBinding"), ("unknown", "ProvisioningFailed")];
        assert_eq!(said, expected.map(|(name, reason)| (name.to_owned(), reason.to_owned())));
    }
}
