//! The arithmetic of scaling and rolling updates, after `pkg/controller/deployment` of kube-controller-manager.

use k8s_openapi::api::apps::v1::DeploymentSpec;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// What a Deployment asks for, in pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) desired: i32,
    pub(super) max_surge: i32,
    pub(super) max_unavailable: i32,
}

/// One ReplicaSet: pods asked for, there, ready, and available.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Replicas {
    pub(super) wanted: i32,
    pub(super) present: i32,
    pub(super) ready: i32,
    pub(super) available: i32,
}

impl Limits {
    /// Percentages of surge are rounded up, of unavailability down; both zero would stand still, so one may be missing
    /// then (`ResolveFenceposts`).
    pub(super) fn of(spec: &DeploymentSpec) -> Self {
        let desired = spec.replicas.unwrap_or(1).max(0);
        let strategy = spec.strategy.as_ref();
        if strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate") {
            return Self { desired, max_surge: 0, max_unavailable: 0 };
        }
        let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
        let quarter = IntOrString::String("25%".to_owned());
        let max_surge = scaled(rolling.and_then(|r| r.max_surge.as_ref()).unwrap_or(&quarter), desired, true);
        let mut max_unavailable = scaled(rolling.and_then(|r| r.max_unavailable.as_ref()).unwrap_or(&quarter), desired, false);
        if max_surge == 0 && max_unavailable == 0 {
            max_unavailable = 1;
        }
        Self { desired, max_surge, max_unavailable: max_unavailable.min(desired) }
    }

    /// How many pods the new set may have beside the others.
    pub(super) fn room_for_new(&self, new_wanted: i32, others: &[Replicas]) -> i32 {
        let total = new_wanted + others.iter().map(|r| r.wanted).sum::<i32>();
        let room = self.desired + self.max_surge - total;
        if room <= 0 { new_wanted } else { new_wanted + room.min(self.desired - new_wanted).max(0) }
    }
}

/// An absolute number, or a percentage of `of`.
pub(super) fn scaled(value: &IntOrString, of: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => match text.strip_suffix('%').and_then(|percent| percent.parse::<i32>().ok()) {
            Some(percent) if round_up => (percent * of + 99) / 100,
            Some(percent) => percent * of / 100,
            None => text.parse().unwrap_or(0),
        },
    }
}

/// One step of a rolling update: the replicas each set is to ask for. The sets are in order of age. As in Kubernetes,
/// a step either grows (or shrinks) the new set or shrinks old ones, never both.
pub(super) fn roll(limits: &Limits, sets: &[Replicas], new: Option<usize>) -> Vec<i32> {
    let mut wanted: Vec<i32> = sets.iter().map(|r| r.wanted).collect();
    let Some(new) = new else { return wanted };
    let others: Vec<Replicas> = sets.iter().enumerate().filter(|(i, _)| *i != new).map(|(_, r)| *r).collect();
    let target = if sets[new].wanted > limits.desired { limits.desired } else { limits.room_for_new(sets[new].wanted, &others) };
    if target != sets[new].wanted {
        wanted[new] = target;
        return wanted;
    }
    shrink_old(limits, sets, new, &mut wanted);
    wanted
}

fn shrink_old(limits: &Limits, sets: &[Replicas], new: usize, wanted: &mut [i32]) {
    let old = || (0..sets.len()).filter(move |i| *i != new);
    if old().all(|i| wanted[i] == 0) {
        return;
    }
    let min_available = limits.desired - limits.max_unavailable;
    let total: i32 = wanted.iter().sum();
    let new_unavailable = sets[new].wanted - sets[new].available;
    let mut removable = total - min_available - new_unavailable;
    if removable <= 0 {
        return;
    }
    // Old pods that do not work go first: they help nobody, and must not hold the rollout up.
    for i in old() {
        let unhealthy = (wanted[i] - sets[i].available).clamp(0, removable);
        wanted[i] -= unhealthy;
        removable -= unhealthy;
    }
    let available: i32 = sets.iter().map(|r| r.available).sum();
    let mut spare = available - min_available;
    for i in old() {
        let step = wanted[i].min(spare).max(0);
        wanted[i] -= step;
        spare -= step;
    }
}

/// A Deployment that was scaled, in the middle of a rollout or paused: every set gets its share of the change, the
/// largest first; what rounding leaves goes to the first.
pub(super) fn proportional(limits: &Limits, sets: &[Replicas], new: Option<usize>, recreate: bool) -> Vec<i32> {
    let mut wanted: Vec<i32> = sets.iter().map(|r| r.wanted).collect();
    let active: Vec<usize> = (0..sets.len()).filter(|i| wanted[*i] > 0).collect();
    // One set only: it is simply scaled.
    let single = match (active.as_slice(), new) {
        ([one], _) => Some(*one),
        ([], Some(new)) => Some(new),
        _ => None,
    };
    if let Some(one) = single {
        wanted[one] = limits.desired;
        return wanted;
    }
    if recreate {
        return wanted;
    }
    // The new set is complete: nothing of the old ones is needed.
    if let Some(new) = new
        && sets[new].wanted == limits.desired
        && sets[new].available == limits.desired
    {
        return wanted.iter().enumerate().map(|(i, _)| if i == new { limits.desired } else { 0 }).collect();
    }
    let allowed = if limits.desired > 0 { limits.desired + limits.max_surge } else { 0 };
    let total: i32 = wanted.iter().sum();
    let change = allowed - total;
    if change == 0 || total == 0 {
        return wanted;
    }
    let mut order = active;
    // Growing prefers the newest of equally large sets, shrinking the oldest.
    order.sort_by_key(|i| (-wanted[*i], if change > 0 { -i64::try_from(*i).unwrap_or(0) } else { i64::try_from(*i).unwrap_or(0) }));
    let mut left = change;
    for i in &order {
        let share = (f64::from(wanted[*i]) * f64::from(change) / f64::from(total)).round();
        #[expect(clippy::cast_possible_truncation, reason = "a share of a replica count")]
        let share = share as i32;
        let share = if change > 0 { share.min(left) } else { share.max(left) };
        wanted[*i] = (wanted[*i] + share).max(0);
        left -= share;
    }
    if let Some(first) = order.first() {
        wanted[*first] = (wanted[*first] + left).max(0);
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn full(wanted: i32) -> Replicas {
        Replicas { wanted, present: wanted, ready: wanted, available: wanted }
    }

    const fn starting(wanted: i32) -> Replicas {
        Replicas { wanted, present: wanted, ready: 0, available: 0 }
    }

    fn limits(desired: i32, max_surge: i32, max_unavailable: i32) -> Limits {
        Limits { desired, max_surge, max_unavailable }
    }

    #[test]
    fn percentages_round_towards_progress() {
        let spec = |replicas| DeploymentSpec { replicas: Some(replicas), ..DeploymentSpec::default() };
        assert_eq!(Limits::of(&spec(1)), limits(1, 1, 0));
        assert_eq!(Limits::of(&spec(3)), limits(3, 1, 0));
        assert_eq!(Limits::of(&spec(4)), limits(4, 1, 1));
        assert_eq!(Limits::of(&spec(10)), limits(10, 3, 2));
    }

    #[test]
    fn a_rollout_grows_the_new_set_then_shrinks_the_old() {
        let limits = limits(3, 1, 0);
        assert_eq!(roll(&limits, &[full(3), starting(0)], Some(1)), [3, 1]);
        assert_eq!(roll(&limits, &[full(3), starting(1)], Some(1)), [3, 1], "waits until the new pod is available");
        assert_eq!(roll(&limits, &[full(3), full(1)], Some(1)), [2, 1]);
        assert_eq!(roll(&limits, &[full(2), full(1)], Some(1)), [2, 2]);
        assert_eq!(roll(&limits, &[full(1), full(3)], Some(1)), [0, 3]);
    }

    #[test]
    fn without_surge_old_pods_leave_first() {
        let limits = limits(2, 0, 1);
        assert_eq!(roll(&limits, &[full(2), starting(0)], Some(1)), [1, 0]);
        assert_eq!(roll(&limits, &[full(1), starting(0)], Some(1)), [1, 1]);
        assert_eq!(roll(&limits, &[full(1), starting(1)], Some(1)), [1, 1]);
        assert_eq!(roll(&limits, &[full(1), full(1)], Some(1)), [0, 1]);
    }

    #[test]
    fn old_pods_that_do_not_work_do_not_hold_a_rollout_up() {
        assert_eq!(roll(&limits(3, 1, 1), &[starting(3), full(1)], Some(1)), [1, 1]);
    }

    #[test]
    fn a_whole_rollout_never_leaves_the_limits() {
        for (desired, surge, unavailable) in [(1, 1, 0), (3, 1, 0), (4, 1, 1), (10, 3, 2), (2, 0, 1), (5, 5, 0)] {
            let limits = limits(desired, surge, unavailable);
            let mut sets = [full(desired), starting(0)];
            for _ in 0..100 {
                let wanted = roll(&limits, &sets, Some(1));
                let total: i32 = wanted.iter().sum();
                assert!(total <= desired + surge, "{wanted:?} exceeds {limits:?}");
                for (set, wanted) in sets.iter_mut().zip(wanted) {
                    // Removed pods stop serving at once, added ones are available a step later.
                    let available = set.wanted.min(wanted);
                    *set = Replicas { wanted, present: wanted, ready: available, available };
                }
                let available: i32 = sets.iter().map(|r| r.available).sum();
                assert!(available >= desired - unavailable, "{sets:?} falls below {limits:?}");
                sets[1] = full(sets[1].wanted);
            }
            assert_eq!(sets, [full(0), full(desired)], "{limits:?} did not finish");
        }
    }

    #[test]
    fn scaling_in_the_middle_of_a_rollout_is_shared_out() {
        assert_eq!(proportional(&limits(20, 2, 0), &[full(8), starting(4)], Some(1), false), [15, 7]);
        assert_eq!(proportional(&limits(5, 1, 0), &[full(3)], Some(0), false), [5]);
        assert_eq!(proportional(&limits(0, 0, 0), &[full(3), full(1)], Some(1), false), [0, 0]);
    }
}
