//! One transaction on one table, as netlink messages.

use std::net::Ipv4Addr;

use super::expression::{ANONYMOUS_SET, NFTA_DATA_VALUE, Set, Verdict};
use super::ruleset::{BaseChain, ChainKind, NamedSet, Rule, SetContent};
use crate::network::error::NetworkError;
use crate::network::netlink::{Attributes, Message, NetlinkSocket};

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_NETDEV: u8 = 5;
/// Number of the hook within its family.
const NF_NETDEV_EGRESS: u32 = 1;
const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_DELCHAIN: u16 = 5;
const NFT_MSG_NEWRULE: u16 = 6;
const NFT_MSG_DELRULE: u16 = 8;
const NFT_MSG_NEWSET: u16 = 9;
const NFT_MSG_DELSET: u16 = 11;
const NFT_MSG_NEWSETELEM: u16 = 12;
const NFT_MSG_DELSETELEM: u16 = 14;
const CREATE: u16 = libc::NLM_F_CREATE as u16;
const APPEND: u16 = (libc::NLM_F_CREATE | libc::NLM_F_APPEND) as u16;
const NFT_SET_ANONYMOUS: u32 = 0x1;
const NFT_SET_CONSTANT: u32 = 0x2;
const NFT_SET_MAP: u32 = 0x8;
const NFT_SET_TIMEOUT: u32 = 0x10;
const NFT_SET_EVAL: u32 = 0x20;
/// `NFT_DATA_VERDICT`.
const VERDICT_DATA: u32 = 0xffff_ff00;
/// Number that the nft tool gives to the type `integer`; the kernel does not care.
const INTEGER_DATA: u32 = 4;
/// A list of elements is one attribute, whose length has 16 bits; an element takes below 128 bytes.
const ELEMENTS_PER_MESSAGE: usize = 400;
const COMMENT_LIMIT: usize = 200;

/// Messages that belong together, since an anonymous set must be used in the transaction that makes it.
type Group = Vec<Message>;

/// A chain that sees what leaves by a device.
#[derive(Clone, Copy, Debug)]
pub(in crate::network) struct DeviceChain<'a> {
    pub(in crate::network) name: &'a str,
    pub(in crate::network) device: &'a str,
}

#[derive(Debug)]
pub(in crate::network) struct Batch {
    table: String,
    family: u8,
    groups: Vec<Group>,
    next_set: u32,
}

impl Batch {
    pub(super) fn new(table: &str) -> Self {
        Self { table: table.to_owned(), family: NFPROTO_IPV4, groups: Vec::new(), next_set: 1 }
    }

    /// A table of the family `netdev` with this one chain, whatever was there of that name; without rules there is no table.
    pub(in crate::network) fn replacing_device_table(table: &str, chain: &DeviceChain<'_>, rules: &[Rule]) -> Self {
        let mut batch = Self { table: table.to_owned(), family: NFPROTO_NETDEV, groups: Vec::new(), next_set: 1 };
        batch.add_table();
        batch.delete_table();
        if rules.is_empty() {
            return batch;
        }
        batch.add_table();
        let hook = Attributes::new().u32_be(1, NF_NETDEV_EGRESS).bytes(2, &0i32.to_be_bytes()).string(3, chain.device);
        let attributes = Attributes::new().string(1, table).string(3, chain.name).nested(4, hook).string(7, "filter");
        batch.push(format!("add chain {} at what leaves by {}", chain.name, chain.device), NFT_MSG_NEWCHAIN, CREATE, &attributes);
        for rule in rules {
            batch.add_rule(chain.name, rule);
        }
        batch
    }

    /// What each message is for, in order.
    #[cfg(test)]
    pub(super) fn purposes(&self) -> Vec<&str> {
        self.groups.iter().flatten().map(|message| message.purpose.as_str()).collect()
    }

    /// Sends the batch; the kernel carries out all of it or nothing. Only a batch too long for the socket's buffer (some
    /// thousand rules) is sent as several such transactions.
    pub(in crate::network) fn commit(&self, socket: &mut NetlinkSocket) -> Result<(), NetworkError> {
        let delimiter = |kind| {
            // The header's resource is the subsystem that the batch is for.
            Message::new("change packet filter rules", kind, 0, &family_header(0, NFNL_SUBSYS_NFTABLES), &Attributes::new())
        };
        let (begin, end) = (delimiter(NFNL_MSG_BATCH_BEGIN), delimiter(NFNL_MSG_BATCH_END));
        let limit = socket.send_limit();
        let mut pending: Vec<Message> = Vec::new();
        let mut length = 0;
        for group in &self.groups {
            let group_length: usize = group.iter().map(Message::len).sum();
            if length + group_length > limit {
                socket.transaction(&begin, &pending, &end)?;
                pending.clear();
                length = 0;
            }
            pending.extend_from_slice(group);
            length += group_length;
        }
        socket.transaction(&begin, &pending, &end)
    }

    pub(super) fn add_table(&mut self) {
        let attributes = Attributes::new().string(1, &self.table);
        self.push(format!("add table {}", self.table), NFT_MSG_NEWTABLE, CREATE, &attributes);
    }

    pub(super) fn delete_table(&mut self) {
        let attributes = Attributes::new().string(1, &self.table);
        self.push(format!("delete table {}", self.table), NFT_MSG_DELTABLE, 0, &attributes);
    }

    pub(super) fn add_chain(&mut self, name: &str, base: Option<BaseChain>) {
        let mut attributes = Attributes::new().string(1, &self.table).string(3, name);
        if let Some(base) = base {
            let hook = Attributes::new().u32_be(1, base.hook as u32).bytes(2, &base.priority.to_be_bytes());
            let kind = match base.kind {
                ChainKind::Filter => "filter",
                ChainKind::Nat => "nat",
            };
            attributes = attributes.nested(4, hook).string(7, kind);
        }
        self.push(format!("add chain {name}"), NFT_MSG_NEWCHAIN, CREATE, &attributes);
    }

    pub(super) fn delete_chain(&mut self, name: &str) {
        let attributes = Attributes::new().string(1, &self.table).string(3, name);
        self.push(format!("delete chain {name}"), NFT_MSG_DELCHAIN, 0, &attributes);
    }

    pub(super) fn flush_chain(&mut self, name: &str) {
        let attributes = Attributes::new().string(1, &self.table).string(2, name);
        self.push(format!("flush chain {name}"), NFT_MSG_DELRULE, 0, &attributes);
    }

    pub(super) fn add_rule(&mut self, chain: &str, rule: &Rule) {
        let mut group = Group::new();
        let mut expressions = Attributes::new();
        for expression in &rule.expressions {
            let number = expression.anonymous_set().map(|set| self.anonymous_set(&mut group, set, &rule.comment));
            expressions = expression.append_to(expressions, number);
        }
        let attributes = Attributes::new().string(1, &self.table).string(2, chain).nested(4, expressions).bytes(7, &comment(&rule.comment));
        group.push(self.message(format!("add rule \"{}\" to chain {chain}", rule.comment), NFT_MSG_NEWRULE, APPEND, &attributes));
        self.groups.push(group);
    }

    pub(super) fn add_set(&mut self, name: &str, set: &NamedSet) {
        let number = self.next_set_number();
        let flags = match set.content {
            SetContent::Keys(_) => 0,
            SetContent::Verdicts(_) => NFT_SET_MAP,
            SetContent::Remembered(_) => NFT_SET_TIMEOUT | NFT_SET_EVAL,
        };
        let mut attributes = self.set_attributes(name, flags, set.key_length, number);
        match &set.content {
            SetContent::Keys(_) => {}
            SetContent::Verdicts(_) => attributes = attributes.u32_be(6, VERDICT_DATA),
            SetContent::Remembered(timeout) => attributes = attributes.u64_be(11, timeout.as_millis() as u64),
        }
        self.push(format!("add set {name}"), NFT_MSG_NEWSET, CREATE, &attributes);
    }

    pub(super) fn delete_set(&mut self, name: &str) {
        let attributes = Attributes::new().string(1, &self.table).string(2, name);
        self.push(format!("delete set {name}"), NFT_MSG_DELSET, 0, &attributes);
    }

    pub(super) fn add_elements<'a>(&mut self, set: &str, elements: impl Iterator<Item = (&'a [u8], Option<&'a Verdict>)>) {
        self.elements("add elements to", NFT_MSG_NEWSETELEM, CREATE, set, elements);
    }

    pub(super) fn delete_elements<'a>(&mut self, set: &str, elements: impl Iterator<Item = (&'a [u8], Option<&'a Verdict>)>) {
        self.elements("delete elements of", NFT_MSG_DELSETELEM, 0, set, elements);
    }

    fn elements<'a>(
        &mut self,
        action: &str,
        kind: u16,
        flags: u16,
        set: &str,
        elements: impl Iterator<Item = (&'a [u8], Option<&'a Verdict>)>,
    ) {
        let elements: Vec<Attributes> = elements.map(|(key, verdict)| element(key, verdict.map(Verdict::data).as_ref())).collect();
        for portion in elements.chunks(ELEMENTS_PER_MESSAGE) {
            let attributes = self.element_attributes(set, portion);
            self.push(format!("{action} set {set}"), kind, flags, &attributes);
        }
    }

    fn anonymous_set(&mut self, group: &mut Group, set: &Set, owner: &str) -> u32 {
        let number = self.next_set_number();
        let Set::Anonymous { key_length, data_length, elements } = set else { return number };
        let flags = NFT_SET_ANONYMOUS | NFT_SET_CONSTANT | data_length.map_or(0, |_| NFT_SET_MAP);
        let mut attributes = self.set_attributes(ANONYMOUS_SET, flags, *key_length, number);
        if let Some(length) = data_length {
            attributes = attributes.u32_be(6, INTEGER_DATA).u32_be(7, *length);
        }
        group.push(self.message(format!("add the set of rule \"{owner}\""), NFT_MSG_NEWSET, CREATE, &attributes));
        let elements: Vec<Attributes> = elements
            .iter()
            .map(|(key, data)| element(key, data_length.map(|_| Attributes::new().bytes(NFTA_DATA_VALUE, data)).as_ref()))
            .collect();
        for portion in elements.chunks(ELEMENTS_PER_MESSAGE) {
            let attributes = self.element_attributes(ANONYMOUS_SET, portion).u32_be(4, number);
            group.push(self.message(format!("fill the set of rule \"{owner}\""), NFT_MSG_NEWSETELEM, CREATE, &attributes));
        }
        number
    }

    fn set_attributes(&self, name: &str, flags: u32, key_length: u32, number: u32) -> Attributes {
        Attributes::new()
            .string(1, &self.table)
            .string(2, name)
            .u32_be(3, flags)
            .u32_be(4, key_type(key_length))
            .u32_be(5, key_length)
            .u32_be(10, number)
    }

    fn element_attributes(&self, set: &str, elements: &[Attributes]) -> Attributes {
        const NFTA_LIST_ELEM: u16 = 1;
        let list = elements.iter().fold(Attributes::new(), |list, element| list.nested(NFTA_LIST_ELEM, element.clone()));
        Attributes::new().string(1, &self.table).string(2, set).nested(3, list)
    }

    fn next_set_number(&mut self) -> u32 {
        let number = self.next_set;
        self.next_set += 1;
        number
    }

    fn message(&self, purpose: String, kind: u16, flags: u16, attributes: &Attributes) -> Message {
        Message::new(purpose, NFNL_SUBSYS_NFTABLES << 8 | kind, flags, &family_header(self.family, 0), attributes)
    }

    fn push(&mut self, purpose: String, kind: u16, flags: u16, attributes: &Attributes) {
        let message = self.message(purpose, kind, flags, attributes);
        self.groups.push(vec![message]);
    }
}

/// `struct nfgenmsg`: family, version, resource in network order.
fn family_header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn element(key: &[u8], data: Option<&Attributes>) -> Attributes {
    let element = Attributes::new().nested(1, Attributes::new().bytes(NFTA_DATA_VALUE, key));
    match data {
        Some(data) => element.nested(2, data.clone()),
        None => element,
    }
}

/// Type number by which the nft tool prints keys readably: an address, address pairs, or address . protocol . port.
fn key_type(length: u32) -> u32 {
    const IPV4_ADDRESS: u32 = 7;
    const PROTOCOL: u32 = 12;
    const SERVICE: u32 = 13;
    const BITS: u32 = 6;
    const ADDRESS: u32 = size_of::<Ipv4Addr>() as u32;
    match length {
        12 => IPV4_ADDRESS << (2 * BITS) | PROTOCOL << BITS | SERVICE,
        8 => IPV4_ADDRESS << BITS | IPV4_ADDRESS,
        ADDRESS => IPV4_ADDRESS,
        _ => INTEGER_DATA,
    }
}

/// A rule's user data as libnftnl lays it out: type (0 is the comment), length, text with a zero byte.
fn comment(text: &str) -> Vec<u8> {
    let text: String = text.chars().filter(|character| *character != '\0').take(COMMENT_LIMIT / 4).collect();
    let mut data = vec![0, text.len() as u8 + 1];
    data.extend_from_slice(text.as_bytes());
    data.push(0);
    data
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::nftables::{Expression, Register};

    #[test]
    fn an_anonymous_set_stays_in_the_transaction_of_its_rule() {
        let mut batch = Batch::new("table");
        let set = Set::Anonymous { key_length: 4, data_length: None, elements: vec![(vec![10, 0, 0, 1], vec![])] };
        let rule = Rule::new("peers", [vec![Expression::Contained { key: Register(0), set }]]);
        batch.add_rule("chain", &rule);
        assert_eq!(batch.groups.len(), 1);
        assert_eq!(
            batch.purposes(),
            ["add the set of rule \"peers\"", "fill the set of rule \"peers\"", "add rule \"peers\" to chain chain"]
        );
    }

    #[test]
    fn many_elements_are_split_below_the_length_of_an_attribute() {
        let mut batch = Batch::new("table");
        let keys: Vec<[u8; 12]> = (0..1000u32).map(|number| [number.to_be_bytes(), [0; 4], [0; 4]].concat().try_into().unwrap()).collect();
        let verdict = Verdict::Goto("service-10.96.100.100-tcp-65535-10.244.100.100-65535".into());
        batch.add_elements("services", keys.iter().map(|key| (key.as_slice(), Some(&verdict))));
        assert_eq!(batch.purposes().len(), 1000_usize.div_ceil(ELEMENTS_PER_MESSAGE));
        assert!(batch.groups.iter().flatten().all(|message| message.len() < usize::from(u16::MAX)));
    }

    #[test]
    fn a_long_comment_fits_into_a_rules_user_data() {
        let data = comment(&"é".repeat(300));
        assert_eq!(usize::from(data[1]), data.len() - 2);
        assert_eq!(data.last(), Some(&0));
    }
}
