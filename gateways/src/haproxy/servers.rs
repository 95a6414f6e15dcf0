//! Which server stands in which slot of the running HAProxy, and how to change that without a reload.
//!
//! As HAProxy Ingress does it (`dynamic-scaling`): every backend has some disabled servers to spare (`slots-min-free`), and endpoints
//! come and go by `set server` over the runtime API. Everything else is a reload.

use std::collections::BTreeMap;

/// Servers to spare in each backend: HAProxy Ingress' `slots-min-free`.
pub(super) const FREE_SLOTS: usize = 6;
/// Address of a server to spare, as HAProxy Ingress has it.
pub(super) const NOWHERE: &str = "127.0.0.1:1023";

/// A configuration, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Servers {
    /// Everything but addresses.
    frame: String,
    /// By backend and slot; `None`: to spare.
    slots: BTreeMap<String, BTreeMap<String, Option<String>>>,
}

impl Servers {
    pub fn of(conf: &str) -> Self {
        let mut servers = Self::default();
        let mut section = String::new();
        for line in conf.lines() {
            let Some(server) = line.trim_start().strip_prefix("server ").filter(|_| line.starts_with(' ')) else {
                if !line.starts_with(' ') {
                    section = line.strip_prefix("backend ").unwrap_or_default().to_owned();
                }
                servers.keep(line);
                continue;
            };
            let mut parts = server.splitn(3, ' ');
            let (slot, address, options) =
                (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let (options, spare) = match options.strip_suffix(" disabled") {
                Some(options) => (options, true),
                None => (options, false),
            };
            // The options of all servers of a backend are one.
            if !servers.slots.contains_key(&section) {
                servers.keep(&format!("    server {options}"));
            }
            servers.slots.entry(section.clone()).or_default().insert(slot.to_owned(), (!spare).then(|| address.to_owned()));
        }
        servers
    }

    fn keep(&mut self, line: &str) {
        self.frame.push_str(line);
        self.frame.push('\n');
    }

    /// The commands that make these servers those of `wanted`, and what stands where after them. `None` where only a reload can.
    pub fn change_to(&self, wanted: &Self) -> Option<(Vec<String>, Self)> {
        if self.frame != wanted.frame || !self.slots.keys().eq(wanted.slots.keys()) {
            return None;
        }
        let mut after = self.clone();
        let (mut additions, mut removals) = (Vec::new(), Vec::new());
        for (backend, slots) in &mut after.slots {
            let wanted: Vec<&String> = wanted.slots.get(backend)?.values().flatten().collect();
            let leaving: Vec<String> = slots
                .iter()
                .filter(|(_, address)| address.as_ref().is_some_and(|address| !wanted.contains(&address)))
                .map(|(slot, _)| slot.clone())
                .collect();
            for address in &wanted {
                if slots.values().flatten().any(|present| present == *address) {
                    continue;
                }
                let (slot, place) = slots.iter_mut().find(|(_, place)| place.is_none())?;
                let (ip, port) = address.rsplit_once(':')?;
                additions.push(format!("set server {backend}/{slot} addr {} port {port}", ip.trim_matches(['[', ']'])));
                additions.push(format!("set server {backend}/{slot} state ready"));
                *place = Some((*address).clone());
            }
            for slot in leaving {
                removals.push(format!("set server {backend}/{slot} state maint"));
                slots.insert(slot, None);
            }
        }
        // First the new ones, so that no backend is without a server in between.
        additions.append(&mut removals);
        Some((additions, after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(addresses: &[&str], options: &str) -> String {
        let mut text = "global\n    nbthread 2\nbackend shop\n    balance roundrobin\n".to_owned();
        for (index, address) in addresses.iter().enumerate() {
            text.push_str(&format!("    server srv{:03} {address} {options}\n", index + 1));
        }
        for index in 0..2 {
            text.push_str(&format!("    server srv{:03} {NOWHERE} {options} disabled\n", addresses.len() + index + 1));
        }
        text + "backend _error404\n"
    }

    #[test]
    fn endpoints_come_into_spare_slots_before_others_leave() {
        let running = Servers::of(&conf(&["10.0.0.1:80", "10.0.0.2:80"], "check"));
        let (commands, after) = running.change_to(&Servers::of(&conf(&["10.0.0.2:80", "10.0.0.3:8080"], "check"))).unwrap();
        assert_eq!(
            commands,
            ["set server shop/srv003 addr 10.0.0.3 port 8080", "set server shop/srv003 state ready", "set server shop/srv001 state maint",]
        );
        // From there back, into the slot that became free
        let (commands, _) = after.change_to(&running).unwrap();
        assert_eq!(
            commands,
            ["set server shop/srv001 addr 10.0.0.1 port 80", "set server shop/srv001 state ready", "set server shop/srv003 state maint"]
        );
    }

    #[test]
    fn all_can_leave() {
        let running = Servers::of(&conf(&["10.0.0.1:80"], "check"));
        let (commands, after) = running.change_to(&Servers::of(&conf(&[], "check"))).unwrap();
        assert_eq!(commands, ["set server shop/srv001 state maint"]);
        assert_eq!(after.change_to(&after), Some((Vec::new(), after.clone())));
    }

    #[test]
    fn everything_else_is_a_reload() {
        let running = Servers::of(&conf(&["10.0.0.1:80"], "check"));
        assert_eq!(running.change_to(&Servers::of(&conf(&["10.0.0.1:80"], "check ssl"))), None, "other options");
        let crowd = ["10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"];
        assert_eq!(running.change_to(&Servers::of(&conf(&crowd, "check"))), None, "more than there are slots");
        let other = conf(&["10.0.0.1:80"], "check").replace("roundrobin", "leastconn");
        assert_eq!(running.change_to(&Servers::of(&other)), None, "another setting");
        let more = conf(&["10.0.0.1:80"], "check") + "backend other\n    server srv001 10.0.0.9:80 check\n";
        assert_eq!(running.change_to(&Servers::of(&more)), None, "another backend");
    }
}
