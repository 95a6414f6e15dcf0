//! PersistentVolumeClaims: the lab has no volumes to give, and says so as kube-controller-manager would.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;

use super::events::{Recorder, reference};
use super::objects::{Key, Objects, key_of};
use super::pods::key;
use super::reconcile::{Outcome, Trigger, drive};
use crate::store::Store;

const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
const PROTECTION: &str = "kubernetes.io/pvc-protection";
const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";

/// Runs for ever.
pub(super) async fn run(store: Store, pods: Objects<Pod>) {
    let claims: Objects<PersistentVolumeClaim> = Objects::new(&store);
    let classes: Objects<StorageClass> = Objects::new(&store);
    let all = claims.clone();
    let triggers = vec![
        Trigger::itself(claims.resource()),
        Trigger::new(classes.resource(), move |_| all.list(None).iter().map(|claim| key(&**claim)).collect()),
        Trigger::new(pods.resource(), |pod| {
            let namespace = key_of(pod).0;
            let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
            volumes.filter_map(|v| Some((namespace.clone(), v["persistentVolumeClaim"]["claimName"].as_str()?.to_owned()))).collect()
        }),
    ];
    let recorder = Recorder::new(&store, "persistentvolume-controller", None);
    let controller = Controller { recorder, claims, classes, pods };
    drive(store, triggers, move |key| controller.reconcile(key)).await;
}

struct Controller {
    claims: Objects<PersistentVolumeClaim>,
    classes: Objects<StorageClass>,
    pods: Objects<Pod>,
    recorder: Recorder,
}

impl Controller {
    fn reconcile(&self, claim_key: &Key) -> Outcome {
        let Some(claim) = self.claims.get(&claim_key.0, &claim_key.1) else { return Outcome::Done };
        if claim.metadata.deletion_timestamp.is_some() {
            self.release(claim_key);
            return Outcome::Done;
        }
        let pending = claim.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending") == "Pending";
        if !pending {
            return Outcome::Done;
        }
        let about = reference(&*claim);
        let name = claim.spec.as_ref().and_then(|s| s.storage_class_name.clone());
        let name = match name {
            // Said outright: no class, only a volume made by hand.
            Some(name) if name.is_empty() => None,
            None => self.default_class(),
            name => name,
        };
        let Some(name) = name else {
            let message = "no persistent volumes available for this claim and no storage class is set";
            self.recorder.normal(&about, "FailedBinding", message);
            return Outcome::Done;
        };
        let Some(class) = self.classes.get("", &name) else {
            self.recorder.warning(&about, "ProvisioningFailed", format!("storageclass.storage.k8s.io \"{name}\" not found"));
            return Outcome::Done;
        };
        if class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer") && !self.is_used(claim_key, |_| true) {
            self.recorder.normal(&about, "WaitForFirstConsumer", "waiting for first consumer to be created before binding");
            return Outcome::Done;
        }
        if class.provisioner == "kubernetes.io/no-provisioner" {
            return Outcome::Done;
        }
        if claim.metadata.annotations.as_ref().and_then(|a| a.get(PROVISIONER)) != Some(&class.provisioner) {
            let _ = self.claims.modify(claim_key, |claim| {
                claim.metadata.annotations.get_or_insert_default().insert(PROVISIONER.to_owned(), class.provisioner.clone());
            });
            // The change brings the claim back here.
            return Outcome::Done;
        }
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered.",
            class.provisioner
        );
        self.recorder.normal(&about, "ExternalProvisioning", message);
        Outcome::Done
    }

    /// A claim goes only when no pod uses it any more (`pvc_protection_controller.go`).
    fn release(&self, claim: &Key) {
        if self.is_used(claim, |pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())) {
            return;
        }
        let _ = self.claims.modify(claim, |claim| {
            claim.metadata.finalizers.iter_mut().for_each(|list| list.retain(|finalizer| finalizer != PROTECTION));
        });
    }

    fn default_class(&self) -> Option<String> {
        let classes = self.classes.list(None);
        let default = |class: &&std::sync::Arc<StorageClass>| {
            class.metadata.annotations.as_ref().and_then(|a| a.get(DEFAULT_CLASS)).is_some_and(|value| value == "true")
        };
        classes.iter().find(default)?.metadata.name.clone()
    }

    fn is_used(&self, claim: &Key, counts: impl Fn(&Pod) -> bool) -> bool {
        self.pods.list(Some(&claim.0)).iter().filter(|pod| counts(pod)).any(|pod| {
            let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
            volumes.into_iter().any(|v| v.persistent_volume_claim.as_ref().is_some_and(|source| source.claim_name == claim.1))
        })
    }
}
