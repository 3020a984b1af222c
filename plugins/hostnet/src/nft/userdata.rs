//! Comments of tables, chains and rules. The kernel stores them unread; programs agree on the form:
//! records of one byte type, one byte length, value. Type 0 is the comment for all three kinds of
//! object, and its text ends with a NUL that the length counts.

const COMMENT: u8 = 0;

/// A record of our own, far from the types that `nft` knows, which passes over it.
const TAG: u8 = 0x70;

/// Most that the kernel keeps (`NFT_USERDATA_MAXLEN`).
const DATA_MAX: usize = 256;

/// Longest comment that `nft` takes.
const PRINTED_MAX: usize = 128;

/// Longest comment in bytes: the record's length is one byte and the kernel takes 256 bytes in all.
const COMMENT_MAX: usize = 253;

/// User data that holds a comment; what is longer than the form allows is cut off.
pub fn from_comment(comment: &[u8]) -> Vec<u8> {
    let text = comment.get(..COMMENT_MAX).unwrap_or(comment);
    // At most 254, as cut above.
    let len = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    let mut data = Vec::with_capacity(text.len() + 3);
    data.extend_from_slice(&[COMMENT, len]);
    data.extend_from_slice(text);
    data.push(0);
    data
}

/// User data of a rule that holds a comment, short enough for `nft` to print it, and a tag.
pub fn from_comment_and_tag(comment: &[u8], tag: &[u8]) -> Vec<u8> {
    let mut data = from_comment(comment.get(..PRINTED_MAX).unwrap_or(comment));
    let room = DATA_MAX.saturating_sub(data.len() + 2);
    let tag = tag.get(..room).unwrap_or(tag);
    data.extend([TAG, u8::try_from(tag.len()).unwrap_or(u8::MAX)]);
    data.extend_from_slice(tag);
    data
}

/// The comment in user data, without its NUL.
pub fn comment(data: &[u8]) -> Option<&[u8]> {
    record(data, COMMENT)?.strip_suffix(&[0])
}

/// The tag in user data.
pub fn tag(data: &[u8]) -> Option<&[u8]> {
    record(data, TAG)
}

fn record(mut data: &[u8], wanted: u8) -> Option<&[u8]> {
    while let [kind, len, rest @ ..] = data {
        let (value, next) = rest.split_at_checked(usize::from(*len))?;
        if *kind == wanted {
            return Some(value);
        }
        data = next;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_nft_prints() {
        // `nft --debug=netlink add rule ... comment "bb82"`: userdata = { \x00\x05bb82\x00 }
        assert_eq!(from_comment(b"bb82"), b"\x00\x05bb82\x00");
        assert_eq!(comment(b"\x00\x05bb82\x00"), Some(b"bb82".as_slice()));
        assert_eq!(comment(b"\x01\x01x\x00\x05bb82\x00"), Some(b"bb82".as_slice()));
    }

    #[test]
    fn what_is_not_a_comment() {
        for data in [b"".as_slice(), b"\x00", b"\x00\x09abc\x00", b"\x00\x01a", b"\x01\x01x"] {
            assert_eq!(comment(data), None, "{data:?}");
        }
    }

    #[test]
    fn a_tag_stands_beside_the_comment() {
        let data = from_comment_and_tag(b"ctr1", b"tag");
        assert_eq!(data, b"\x00\x05ctr1\x00\x70\x03tag");
        assert_eq!((comment(&data), tag(&data)), (Some(b"ctr1".as_slice()), Some(b"tag".as_slice())));
        assert_eq!(tag(&from_comment(b"ctr1")), None);
        let long = from_comment_and_tag(&[b'c'; 300], &[b't'; 300]);
        assert_eq!((long.len(), comment(&long).unwrap().len()), (256, 128));
        assert!(tag(&long).unwrap().len() > 100);
    }

    #[test]
    fn long_comments_are_cut() {
        let data = from_comment(&[b'x'; 1000]);
        assert_eq!(data.len(), 256);
        assert_eq!(comment(&data).unwrap().len(), COMMENT_MAX);
    }
}
