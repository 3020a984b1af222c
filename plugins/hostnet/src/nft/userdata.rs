//! Comments of tables, chains and rules. The kernel stores them unread; programs agree on the form:
//! records of one byte type, one byte length, value. Type 0 is the comment for all three kinds of
//! object, and its text ends with a NUL that the length counts.

const COMMENT: u8 = 0;

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

/// The comment in user data, without its NUL.
pub fn comment(mut data: &[u8]) -> Option<&[u8]> {
    while let [kind, len, rest @ ..] = data {
        let (value, next) = rest.split_at_checked(usize::from(*len))?;
        if *kind == COMMENT {
            return value.strip_suffix(&[0]);
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
    fn long_comments_are_cut() {
        let data = from_comment(&[b'x'; 1000]);
        assert_eq!(data.len(), 256);
        assert_eq!(comment(&data).unwrap().len(), COMMENT_MAX);
    }
}
