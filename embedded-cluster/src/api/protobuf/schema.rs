//! Field numbers of the messages that kubectl's typed clients write, from the `generated.proto` files of k8s.io/api.

use std::collections::HashMap;
use std::sync::LazyLock;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Text,
    Bytes,
    Integer,
    Bool,
    Time,
    Quantity,
    IntOrString,
    Message,
    /// A message whose fields are the parent's in JSON.
    Inline,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub number: u64,
    pub name: &'static str,
    pub kind: Type,
    /// The message's type.
    pub of: &'static str,
    pub list: bool,
    pub map: bool,
    /// A pointer in Go: sent only when set, so that zero is a value.
    pub pointer: bool,
}

/// A line a message: `Name: number field type, …`. A type is `text`, `bytes`, `int`, `bool`, `time`, `quantity`,
/// `intstr` or a message's name; before it `*` means a pointer, `[]` a list, `map:` a map of texts to it, `~` inline.
const MESSAGES: &str = "
ObjectMeta: 1 name text, 2 generateName text, 3 namespace text, 4 selfLink text, 5 uid text, 6 resourceVersion text, 7 generation int, 8 creationTimestamp time, 9 deletionTimestamp time, 10 deletionGracePeriodSeconds *int, 11 labels map:text, 12 annotations map:text, 13 ownerReferences []OwnerReference, 14 finalizers []text
OwnerReference: 1 kind text, 3 name text, 4 uid text, 5 apiVersion text, 6 controller *bool, 7 blockOwnerDeletion *bool
LabelSelector: 1 matchLabels map:text, 2 matchExpressions []LabelSelectorRequirement
LabelSelectorRequirement: 1 key text, 2 operator text, 3 values []text
DeleteOptions: 1 gracePeriodSeconds *int, 2 preconditions Preconditions, 3 orphanDependents *bool, 4 propagationPolicy *text, 5 dryRun []text
Preconditions: 1 uid *text, 2 resourceVersion *text
Namespace: 1 metadata ObjectMeta, 2 spec NamespaceSpec, 3 status NamespaceStatus
NamespaceSpec: 1 finalizers []text
NamespaceStatus: 1 phase text
ConfigMap: 1 metadata ObjectMeta, 2 data map:text, 3 binaryData map:bytes, 4 immutable *bool
Secret: 1 metadata ObjectMeta, 2 data map:bytes, 3 type text, 4 stringData map:text, 5 immutable *bool
ServiceAccount: 1 metadata ObjectMeta, 2 secrets []ObjectReference, 3 imagePullSecrets []LocalObjectReference, 4 automountServiceAccountToken *bool
ObjectReference: 1 kind text, 2 namespace text, 3 name text, 4 uid text, 5 apiVersion text, 6 resourceVersion text, 7 fieldPath text
LocalObjectReference: 1 name text
Binding: 1 metadata ObjectMeta, 2 target ObjectReference
Service: 1 metadata ObjectMeta, 2 spec ServiceSpec, 3 status ServiceStatus
ServiceSpec: 1 ports []ServicePort, 2 selector map:text, 3 clusterIP text, 4 type text, 5 externalIPs []text, 7 sessionAffinity text, 8 loadBalancerIP text, 9 loadBalancerSourceRanges []text, 10 externalName text, 11 externalTrafficPolicy text, 12 healthCheckNodePort int, 13 publishNotReadyAddresses bool, 17 ipFamilyPolicy *text, 18 clusterIPs []text, 19 ipFamilies []text, 20 allocateLoadBalancerNodePorts *bool, 21 loadBalancerClass *text, 22 internalTrafficPolicy *text
ServicePort: 1 name text, 2 protocol text, 3 port int, 4 targetPort intstr, 5 nodePort int, 6 appProtocol *text
ServiceStatus: 1 loadBalancer LoadBalancerStatus
Pod: 1 metadata ObjectMeta, 2 spec PodSpec, 3 status PodStatus
PodTemplateSpec: 1 metadata ObjectMeta, 2 spec PodSpec
PodSpec: 1 volumes []Volume, 2 containers []Container, 3 restartPolicy text, 4 terminationGracePeriodSeconds *int, 5 activeDeadlineSeconds *int, 6 dnsPolicy text, 7 nodeSelector map:text, 8 serviceAccountName text, 9 serviceAccount text, 10 nodeName text, 11 hostNetwork bool, 12 hostPID bool, 13 hostIPC bool, 14 securityContext PodSecurityContext, 15 imagePullSecrets []LocalObjectReference, 16 hostname text, 17 subdomain text, 19 schedulerName text, 20 initContainers []Container, 21 automountServiceAccountToken *bool, 22 tolerations []Toleration, 23 hostAliases []HostAlias, 24 priorityClassName text, 25 priority *int, 27 shareProcessNamespace *bool, 29 runtimeClassName *text, 30 enableServiceLinks *bool, 31 preemptionPolicy *text
Container: 1 name text, 2 image text, 3 command []text, 4 args []text, 5 workingDir text, 6 ports []ContainerPort, 7 env []EnvVar, 8 resources ResourceRequirements, 9 volumeMounts []VolumeMount, 10 livenessProbe Probe, 11 readinessProbe Probe, 12 lifecycle Lifecycle, 13 terminationMessagePath text, 14 imagePullPolicy text, 15 securityContext SecurityContext, 16 stdin bool, 17 stdinOnce bool, 18 tty bool, 20 terminationMessagePolicy text, 22 startupProbe Probe, 24 restartPolicy *text
ContainerPort: 1 name text, 2 hostPort int, 3 containerPort int, 4 protocol text, 5 hostIP text
EnvVar: 1 name text, 2 value text, 3 valueFrom EnvVarSource
EnvVarSource: 1 fieldRef ObjectFieldSelector, 3 configMapKeyRef KeySelector, 4 secretKeyRef KeySelector
ObjectFieldSelector: 1 apiVersion text, 2 fieldPath text
KeySelector: 1 localObjectReference ~LocalObjectReference, 2 key text, 3 optional *bool
Probe: 1 handler ~ProbeHandler, 2 initialDelaySeconds int, 3 timeoutSeconds int, 4 periodSeconds int, 5 successThreshold int, 6 failureThreshold int, 7 terminationGracePeriodSeconds *int
ProbeHandler: 1 exec ExecAction, 2 httpGet HTTPGetAction, 3 tcpSocket TCPSocketAction
Lifecycle: 1 postStart LifecycleHandler, 2 preStop LifecycleHandler
LifecycleHandler: 1 exec ExecAction, 2 httpGet HTTPGetAction, 3 tcpSocket TCPSocketAction, 4 sleep SleepAction
ExecAction: 1 command []text
HTTPGetAction: 1 path text, 2 port intstr, 3 host text, 4 scheme text, 5 httpHeaders []HTTPHeader
HTTPHeader: 1 name text, 2 value text
TCPSocketAction: 1 port intstr, 2 host text
SleepAction: 1 seconds int
SecurityContext: 1 capabilities Capabilities, 2 privileged *bool, 4 runAsUser *int, 5 runAsNonRoot *bool, 6 readOnlyRootFilesystem *bool, 7 allowPrivilegeEscalation *bool, 8 runAsGroup *int
Capabilities: 1 add []text, 2 drop []text
PodSecurityContext: 2 runAsUser *int, 3 runAsNonRoot *bool, 5 fsGroup *int, 6 runAsGroup *int, 7 sysctls []Sysctl
Sysctl: 1 name text, 2 value text
Toleration: 1 key text, 2 operator text, 3 value text, 4 effect text, 5 tolerationSeconds *int
HostAlias: 1 ip text, 2 hostnames []text
Volume: 1 name text, 2 volumeSource ~VolumeSource
VolumeSource: 1 hostPath HostPathVolumeSource, 2 emptyDir EmptyDirVolumeSource, 6 secret SecretVolumeSource, 19 configMap ConfigMapVolumeSource, 26 projected ProjectedVolumeSource
HostPathVolumeSource: 1 path text, 2 type *text
EmptyDirVolumeSource: 1 medium text
SecretVolumeSource: 1 secretName text, 2 items []KeyToPath, 3 defaultMode *int, 4 optional *bool
ConfigMapVolumeSource: 1 localObjectReference ~LocalObjectReference, 2 items []KeyToPath, 3 defaultMode *int, 4 optional *bool
KeyToPath: 1 key text, 2 path text, 3 mode *int
ProjectedVolumeSource: 1 sources []VolumeProjection, 2 defaultMode *int
VolumeProjection: 1 secret SourceProjection, 2 downwardAPI DownwardAPIProjection, 3 configMap SourceProjection, 4 serviceAccountToken ServiceAccountTokenProjection
SourceProjection: 1 localObjectReference ~LocalObjectReference, 2 items []KeyToPath, 4 optional *bool
DownwardAPIProjection: 1 items []DownwardAPIVolumeFile
DownwardAPIVolumeFile: 1 path text, 2 fieldRef ObjectFieldSelector, 4 mode *int
ServiceAccountTokenProjection: 1 audience text, 2 expirationSeconds *int, 3 path text
ResourceRequirements: 1 limits map:quantity, 2 requests map:quantity
VolumeMount: 1 name text, 2 readOnly bool, 3 mountPath text, 4 subPath text, 5 mountPropagation *text, 6 subPathExpr text, 7 recursiveReadOnly *text
ResourceQuota: 1 metadata ObjectMeta, 2 spec ResourceQuotaSpec, 3 status ResourceQuotaStatus
ResourceQuotaSpec: 1 hard map:quantity, 2 scopes []text
Deployment: 1 metadata ObjectMeta, 2 spec DeploymentSpec, 3 status DeploymentStatus
DeploymentSpec: 1 replicas *int, 2 selector LabelSelector, 3 template PodTemplateSpec, 4 strategy DeploymentStrategy, 5 minReadySeconds int, 6 revisionHistoryLimit *int, 7 paused bool, 9 progressDeadlineSeconds *int
DeploymentStatus: 1 observedGeneration int, 2 replicas int, 3 updatedReplicas int, 4 availableReplicas int, 5 unavailableReplicas int, 7 readyReplicas int, 8 collisionCount *int
DeploymentStrategy: 1 type text, 2 rollingUpdate RollingUpdateDeployment
RollingUpdateDeployment: 1 maxUnavailable intstr, 2 maxSurge intstr
Ingress: 1 metadata ObjectMeta, 2 spec IngressSpec, 3 status IngressStatus
IngressSpec: 1 defaultBackend IngressBackend, 2 tls []IngressTLS, 3 rules []IngressRule, 4 ingressClassName *text
IngressStatus: 1 loadBalancer LoadBalancerStatus
IngressTLS: 1 hosts []text, 2 secretName text
IngressRule: 1 host text, 2 ingressRuleValue ~IngressRuleValue
IngressRuleValue: 1 http HTTPIngressRuleValue
HTTPIngressRuleValue: 1 paths []HTTPIngressPath
HTTPIngressPath: 1 path text, 2 backend IngressBackend, 3 pathType *text
IngressBackend: 4 service IngressServiceBackend
IngressServiceBackend: 1 name text, 2 port ServiceBackendPort
ServiceBackendPort: 1 name text, 2 number int
Job: 1 metadata ObjectMeta, 2 spec JobSpec, 3 status JobStatus
JobSpec: 1 parallelism *int, 2 completions *int, 3 activeDeadlineSeconds *int, 4 selector LabelSelector, 5 manualSelector *bool, 6 template PodTemplateSpec, 7 backoffLimit *int, 8 ttlSecondsAfterFinished *int, 9 completionMode *text, 10 suspend *bool
JobStatus: 2 startTime time, 3 completionTime time, 4 active int, 5 succeeded int, 6 failed int, 7 completedIndexes text
HorizontalPodAutoscaler: 1 metadata ObjectMeta, 2 spec HorizontalPodAutoscalerSpec, 3 status HorizontalPodAutoscalerStatus
HorizontalPodAutoscalerSpec: 1 scaleTargetRef CrossVersionObjectReference, 2 minReplicas *int, 3 maxReplicas int, 4 metrics []MetricSpec
HorizontalPodAutoscalerStatus: 3 currentReplicas int, 4 desiredReplicas int
CrossVersionObjectReference: 1 kind text, 2 name text, 3 apiVersion text
MetricSpec: 1 type text, 4 resource ResourceMetricSource
ResourceMetricSource: 1 name text, 2 target MetricTarget
MetricTarget: 1 type text, 2 value *quantity, 3 averageValue *quantity, 4 averageUtilization *int
CronJob: 1 metadata ObjectMeta, 2 spec CronJobSpec, 3 status CronJobStatus
CronJobSpec: 1 schedule text, 2 startingDeadlineSeconds *int, 3 concurrencyPolicy text, 4 suspend *bool, 5 jobTemplate JobTemplateSpec, 6 successfulJobsHistoryLimit *int, 7 failedJobsHistoryLimit *int, 8 timeZone *text
JobTemplateSpec: 1 metadata ObjectMeta, 2 spec JobSpec
Role: 1 metadata ObjectMeta, 2 rules []PolicyRule
ClusterRole: 1 metadata ObjectMeta, 2 rules []PolicyRule, 3 aggregationRule AggregationRule
AggregationRule: 1 clusterRoleSelectors []LabelSelector
PolicyRule: 1 verbs []text, 2 apiGroups []text, 3 resources []text, 4 resourceNames []text, 5 nonResourceURLs []text
RoleBinding: 1 metadata ObjectMeta, 2 subjects []Subject, 3 roleRef RoleRef
ClusterRoleBinding: 1 metadata ObjectMeta, 2 subjects []Subject, 3 roleRef RoleRef
Subject: 1 kind text, 2 apiGroup text, 3 name text, 4 namespace text
RoleRef: 1 apiGroup text, 2 kind text, 3 name text
PodDisruptionBudget: 1 metadata ObjectMeta, 2 spec PodDisruptionBudgetSpec, 3 status PodDisruptionBudgetStatus
PodDisruptionBudgetSpec: 1 minAvailable intstr, 2 selector LabelSelector, 3 maxUnavailable intstr, 4 unhealthyPodEvictionPolicy *text
PodDisruptionBudgetStatus: 1 observedGeneration int, 3 disruptionsAllowed int, 4 currentHealthy int, 5 desiredHealthy int, 6 expectedPods int
Eviction: 1 metadata ObjectMeta, 2 deleteOptions DeleteOptions
PriorityClass: 1 metadata ObjectMeta, 2 value int, 3 globalDefault bool, 4 description text, 5 preemptionPolicy *text
SelfSubjectAccessReview: 1 metadata ObjectMeta, 2 spec SelfSubjectAccessReviewSpec, 3 status SubjectAccessReviewStatus
SelfSubjectAccessReviewSpec: 1 resourceAttributes ResourceAttributes, 2 nonResourceAttributes NonResourceAttributes
ResourceAttributes: 1 namespace text, 2 verb text, 3 group text, 4 version text, 5 resource text, 6 subresource text, 7 name text
NonResourceAttributes: 1 path text, 2 verb text
SubjectAccessReviewStatus: 1 allowed bool, 2 reason text, 3 evaluationError text, 4 denied bool
SelfSubjectRulesReview: 1 metadata ObjectMeta, 2 spec SelfSubjectRulesReviewSpec, 3 status SubjectRulesReviewStatus
SelfSubjectRulesReviewSpec: 1 namespace text
SubjectRulesReviewStatus: 3 incomplete bool, 4 evaluationError text
SelfSubjectReview: 1 metadata ObjectMeta, 2 status SelfSubjectReviewStatus
SelfSubjectReviewStatus: 1 userInfo UserInfo
UserInfo: 1 username text, 2 uid text, 3 groups []text
TokenRequest: 1 metadata ObjectMeta, 2 spec TokenRequestSpec, 3 status TokenRequestStatus
TokenRequestSpec: 1 audiences []text, 3 boundObjectRef BoundObjectReference, 4 expirationSeconds *int
BoundObjectReference: 1 kind text, 2 apiVersion text, 3 name text, 4 uid text
TokenRequestStatus: 1 token text, 2 expirationTimestamp time
";

static TABLE: LazyLock<HashMap<&'static str, Vec<Field>>> = LazyLock::new(|| MESSAGES.lines().filter_map(line).collect());

pub(super) fn fields(message: &str) -> Option<&'static [Field]> {
    TABLE.get(message).map(Vec::as_slice)
}

fn line(line: &'static str) -> Option<(&'static str, Vec<Field>)> {
    let (name, fields) = line.split_once(": ")?;
    Some((name, fields.split(", ").filter_map(field).collect()))
}

fn field(text: &'static str) -> Option<Field> {
    let mut words = text.split(' ');
    let (number, name, written) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
    let (mut of, mut list, mut map, mut pointer, mut inline) = (written, false, false, false, false);
    for (prefix, flag) in [("*", &mut pointer), ("[]", &mut list), ("map:", &mut map), ("~", &mut inline)] {
        if let Some(rest) = of.strip_prefix(prefix) {
            *flag = true;
            of = rest;
        }
    }
    let kind = match of {
        _ if inline => Type::Inline,
        "text" => Type::Text,
        "bytes" => Type::Bytes,
        "int" => Type::Integer,
        "bool" => Type::Bool,
        "time" => Type::Time,
        "quantity" => Type::Quantity,
        "intstr" => Type::IntOrString,
        _ => Type::Message,
    };
    // An IntOrString that is no pointer in Go is sent with zeros when it is not set.
    Some(Field { number, name, kind, of, list, map, pointer })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_read_and_numbers_are_unique() {
        let lines: Vec<&str> = MESSAGES.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(TABLE.len(), lines.len());
        for text in lines {
            let (name, written) = text.split_once(": ").unwrap();
            let fields = fields(name).unwrap();
            assert_eq!(fields.len(), written.split(", ").count(), "{name}");
            let numbers: std::collections::BTreeSet<u64> = fields.iter().map(|f| f.number).collect();
            assert_eq!(numbers.len(), fields.len(), "{name}");
        }
    }
}
