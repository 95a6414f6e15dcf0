//! Header blocks: zlib streams with a dictionary that both sides know (SPDY/3 draft, section 2.6.10).

use std::collections::BTreeMap;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, TINFL_LZ_DICT_SIZE, decompress, inflate_flags};

const WORDS: [&str; 65] = [
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];
const REST: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";
/// Adler-32 of the dictionary, by which a zlib header names it (RFC 1950).
const DICTIONARY_ID: [u8; 4] = [0xe3, 0xc6, 0xa7, 0xc2];
/// A few short headers; nothing honest comes near this.
const LARGEST: usize = 64 * 1024;

fn dictionary() -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in WORDS {
        bytes.extend(u32::try_from(word.len()).unwrap_or_default().to_be_bytes());
        bytes.extend(word.as_bytes());
    }
    bytes.extend(REST.as_bytes());
    bytes
}

/// Reads the header blocks of one connection, which are one compressed stream.
pub(super) struct Reader {
    inflate: Box<DecompressorOxide>,
    /// The last 32 KiB of output, which matches refer to; the dictionary to begin with.
    window: Vec<u8>,
    at: usize,
    begun: bool,
}

impl Reader {
    pub fn new() -> Self {
        Self { inflate: Box::default(), window: vec![0; TINFL_LZ_DICT_SIZE], at: 0, begun: false }
    }

    /// `None` when the block is malformed; the connection cannot go on then.
    pub fn read(&mut self, block: &[u8]) -> Option<BTreeMap<String, String>> {
        let mut rest = block;
        if !self.begun {
            self.begun = true;
            // zlib's header: method, flags with the bit for a preset dictionary, the dictionary's id.
            let (header, after) = rest.split_at_checked(2)?;
            rest = after;
            if header[1] & 0x20 != 0 {
                let (id, after) = rest.split_at_checked(4)?;
                if id != DICTIONARY_ID {
                    return None;
                }
                rest = after;
                let dictionary = dictionary();
                self.window[..dictionary.len()].copy_from_slice(&dictionary);
                self.at = dictionary.len();
            }
        }
        parse(&self.inflate(rest)?)
    }

    fn inflate(&mut self, mut input: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        loop {
            let flags = inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
            let (status, read, written) = decompress(&mut self.inflate, input, &mut self.window, self.at, flags);
            out.extend_from_slice(&self.window[self.at..self.at + written]);
            self.at = (self.at + written) % self.window.len();
            input = &input[read..];
            if out.len() > LARGEST {
                return None;
            }
            match status {
                TINFLStatus::NeedsMoreInput => return Some(out),
                TINFLStatus::HasMoreOutput => {}
                _ => return None,
            }
        }
    }
}

/// A count, then names and values, each with its length before it.
fn parse(mut block: &[u8]) -> Option<BTreeMap<String, String>> {
    fn number(block: &mut &[u8]) -> Option<usize> {
        let (bytes, rest) = block.split_at_checked(4)?;
        *block = rest;
        usize::try_from(u32::from_be_bytes(bytes.try_into().ok()?)).ok()
    }
    fn text(block: &mut &[u8]) -> Option<String> {
        let length = number(block)?;
        let (bytes, rest) = block.split_at_checked(length)?;
        *block = rest;
        String::from_utf8(bytes.to_vec()).ok()
    }
    let count = number(&mut block)?;
    let mut headers = BTreeMap::new();
    for _ in 0..count {
        let (name, value) = (text(&mut block)?, text(&mut block)?);
        headers.insert(name.to_lowercase(), value);
    }
    Some(headers)
}

/// An empty header block. The first one of a connection begins the zlib stream, without a dictionary; the block is
/// stored, not compressed, and followed by an empty stored block, as a flush is.
pub(super) fn empty_block(first: bool) -> Vec<u8> {
    let mut out = if first { vec![0x78, 0x01] } else { Vec::new() };
    out.extend([0x00, 4, 0, !4, 0xff, 0, 0, 0, 0]);
    out.extend([0x00, 0, 0, 0xff, 0xff]);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Header block of a stream that kubectl 1.33 opens (streamtype, port, requestid), stored uncompressed.
    fn block(pairs: &[(&str, &str)], first: bool) -> Vec<u8> {
        let mut plain = u32::try_from(pairs.len()).unwrap().to_be_bytes().to_vec();
        for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
            plain.extend(text.as_bytes());
        }
        let length = u16::try_from(plain.len()).unwrap();
        let mut out = if first { [&[0x78, 0xbb][..], &DICTIONARY_ID].concat() } else { Vec::new() };
        out.push(0);
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend(plain);
        out.extend([0, 0, 0, 0xff, 0xff]);
        out
    }

    #[test]
    fn the_dictionary_is_the_one_of_the_draft() {
        let (mut a, mut b) = (1_u32, 0_u32);
        for byte in dictionary() {
            a = (a + u32::from(byte)) % 65521;
            b = (b + a) % 65521;
        }
        assert_eq!((b << 16 | a).to_be_bytes(), DICTIONARY_ID);
    }

    #[test]
    fn blocks_of_one_connection_are_one_stream() {
        let mut reader = Reader::new();
        let first = reader.read(&block(&[("streamtype", "error"), ("port", "80")], true)).unwrap();
        assert_eq!(first["streamtype"], "error");
        let second = reader.read(&block(&[("streamtype", "data")], false)).unwrap();
        assert_eq!(second["streamtype"], "data");
        assert!(Reader::new().read(&[0x78, 0xbb, 1, 2, 3, 4]).is_none(), "another dictionary");
    }

    #[test]
    fn our_own_empty_blocks_can_be_read() {
        let mut reader = Reader::new();
        assert!(reader.read(&empty_block(true)).unwrap().is_empty());
        assert!(reader.read(&empty_block(false)).unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..4)) {
            let mut reader = Reader::new();
            for block in blocks {
                if reader.read(&[&[0x78, 0x01][..], &block].concat()).is_none() {
                    break;
                }
            }
        }
    }
}
