//! Encoding: a message is `struct nlmsghdr`, a family's own header, and attributes (type, length, value; padded to four
//! bytes; values may nest), as in `<linux/netlink.h>`.

const ALIGNMENT: usize = 4;
const MESSAGE_HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;
/// `NLA_F_NESTED`, which nf_tables insists on for nested attributes.
const NESTED: u16 = 1 << 15;
/// The type less `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
const KIND_MASK: u16 = (1 << 14) - 1;

/// A list of attributes under construction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attributes {
    buffer: Vec<u8>,
}

impl Attributes {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        self.push(kind, value);
        self
    }

    /// In the machine's byte order, as rtnetlink has it.
    pub(crate) fn u32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// In network byte order, as nf_tables has it.
    pub(crate) fn u32_be(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn u64_be(self, kind: u16, value: u64) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Terminated by a zero byte.
    pub(crate) fn string(mut self, kind: u16, value: &str) -> Self {
        let start = self.open(kind);
        self.buffer.extend_from_slice(value.as_bytes());
        self.buffer.push(0);
        self.close(start);
        self
    }

    pub(crate) fn nested(self, kind: u16, inner: Attributes) -> Self {
        self.nested_bytes(kind, &inner.buffer)
    }

    /// Nests attributes that are encoded already.
    pub(crate) fn nested_bytes(mut self, kind: u16, inner: &[u8]) -> Self {
        self.push(kind | NESTED, inner);
        self
    }

    /// Adds `inner` only where there is one.
    pub(crate) fn maybe(self, add: impl FnOnce(Self) -> Self, when: bool) -> Self {
        if when { add(self) } else { self }
    }

    fn push(&mut self, kind: u16, value: &[u8]) {
        let start = self.open(kind);
        self.buffer.extend_from_slice(value);
        self.close(start);
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0, 0]);
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize) {
        // An attribute's length field has 16 bits; the callers' values are far below, and the kernel refuses a wrapped one.
        let length = (self.buffer.len() - start) as u16;
        self.buffer[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        pad(&mut self.buffer);
    }

    pub(crate) fn len(&self) -> usize {
        self.buffer.len()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.buffer
    }
}

/// The attributes in `bytes`, as type (without flags) and value; stops where they are cut off.
pub(crate) fn attributes_in(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(rest.get(0..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?) & KIND_MASK;
        let value = rest.get(ATTRIBUTE_HEADER..length)?;
        rest = rest.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// One request. `purpose` completes "cannot …" in errors.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) purpose: String,
    pub(crate) kind: u16,
    /// Besides `NLM_F_REQUEST`.
    pub(crate) flags: u16,
    payload: Vec<u8>,
}

impl Message {
    pub(crate) fn new(purpose: impl Into<String>, kind: u16, flags: u16, family_header: &[u8], attributes: &Attributes) -> Self {
        let mut payload = Vec::with_capacity(family_header.len() + attributes.len() + ATTRIBUTE_HEADER);
        payload.extend_from_slice(family_header);
        pad(&mut payload);
        payload.extend_from_slice(attributes.as_bytes());
        Self { purpose: purpose.into(), kind, flags, payload }
    }

    pub(crate) fn len(&self) -> usize {
        (MESSAGE_HEADER + self.payload.len()).next_multiple_of(ALIGNMENT)
    }

    pub(crate) fn encode(&self, sequence: u32, further_flags: u16, buffer: &mut Vec<u8>) {
        let length = (MESSAGE_HEADER + self.payload.len()) as u32;
        buffer.extend_from_slice(&length.to_ne_bytes());
        buffer.extend_from_slice(&self.kind.to_ne_bytes());
        buffer.extend_from_slice(&(libc::NLM_F_REQUEST as u16 | self.flags | further_flags).to_ne_bytes());
        buffer.extend_from_slice(&sequence.to_ne_bytes());
        buffer.extend_from_slice(&0u32.to_ne_bytes());
        buffer.extend_from_slice(&self.payload);
        pad(buffer);
    }
}

fn pad(buffer: &mut Vec<u8>) {
    buffer.resize(buffer.len().next_multiple_of(ALIGNMENT), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_but_their_length_is_not() {
        let attributes = Attributes::new().string(3, "lo").u32(4, 7);
        let bytes = attributes.as_bytes();
        assert_eq!(bytes[0..2], 7u16.to_ne_bytes());
        assert_eq!(bytes[2..4], 3u16.to_ne_bytes());
        assert_eq!(&bytes[4..8], b"lo\0\0");
        assert_eq!(bytes[8..10], 8u16.to_ne_bytes());
        assert_eq!(bytes.len(), 16);
        let read: Vec<_> = attributes_in(bytes).collect();
        assert_eq!(read, [(3, b"lo\0".as_slice()), (4, &7u32.to_ne_bytes())]);
        assert_eq!(attributes_in(&bytes[..14]).count(), 1, "a cut-off attribute is not read");
    }

    proptest::proptest! {
        #[test]
        fn what_is_encoded_is_read_back(list in proptest::collection::vec((0u16..=KIND_MASK, proptest::collection::vec(0u8.., 0..40)), 0..8)) {
            let encoded = list.iter().fold(Attributes::new(), |attributes, (kind, value)| attributes.bytes(*kind, value));
            let read: Vec<(u16, Vec<u8>)> = attributes_in(encoded.as_bytes()).map(|(kind, value)| (kind, value.to_vec())).collect();
            proptest::prop_assert_eq!(read, list);
        }

        #[test]
        fn garbage_is_read_without_panic(bytes in proptest::collection::vec(0u8.., 0..64)) {
            attributes_in(&bytes).for_each(drop);
        }
    }

    #[test]
    fn nested_attributes_are_flagged_and_counted() {
        let attributes = Attributes::new().nested(5, Attributes::new().u32_be(1, 1).u32_be(2, 2));
        let bytes = attributes.as_bytes();
        assert_eq!(bytes[0..2], 20u16.to_ne_bytes());
        assert_eq!(bytes[2..4], (5u16 | NESTED).to_ne_bytes());
    }

    #[test]
    fn message_length_counts_header_and_family_header() {
        let message = Message::new("test", 16, 0, &[1, 2, 3], &Attributes::new().u32(1, 9));
        let mut buffer = Vec::new();
        message.encode(42, 0, &mut buffer);
        assert_eq!(buffer.len(), message.len());
        assert_eq!(buffer[0..4], (16u32 + 4 + 8).to_ne_bytes());
        assert_eq!(buffer[8..12], 42u32.to_ne_bytes());
    }
}
