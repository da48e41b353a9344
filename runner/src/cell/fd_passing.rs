//! Messages that carry descriptors, over sockets that keep message boundaries.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};

/// Largest number of descriptors that one message carries.
pub(super) const MAX_FDS_PER_MESSAGE: usize = 32;

/// Sends one message with these descriptors.
///
/// # Errors
/// `EAGAIN` on a nonblocking socket without room; `EPIPE` when the other side is gone.
pub(super) fn send_with_fds(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    with: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let numbers: Vec<RawFd> = with.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let rights = if numbers.is_empty() {
        &[]
    } else {
        rights.as_slice()
    };
    let bytes = [IoSlice::new(bytes)];
    let flags = MsgFlags::MSG_NOSIGNAL;
    loop {
        match sendmsg::<UnixAddr>(socket.as_raw_fd(), &bytes, rights, flags, None) {
            Ok(_whole) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Receives one message and its descriptors, which are closed at exec. An empty message means that
/// the other side is gone.
///
/// # Errors
/// `EAGAIN` on a nonblocking socket with nothing to receive; `EMSGSIZE` for a message that is
/// longer than `buffer`.
pub(super) fn recv_with_fds(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> Result<(usize, Vec<OwnedFd>), Errno> {
    let mut space = cmsg_space!([RawFd; MAX_FDS_PER_MESSAGE]);
    let mut bytes = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = loop {
        match recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut bytes, Some(&mut space), flags) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    let mut descriptors = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = part {
            // SAFETY: the kernel has just made these descriptors for this process, and nothing else
            // owns them.
            let owned = numbers
                .into_iter()
                .map(|number| unsafe { OwnedFd::from_raw_fd(number) });
            descriptors.extend(owned);
        }
    }
    if message.flags.contains(MsgFlags::MSG_TRUNC) {
        return Err(Errno::EMSGSIZE);
    }
    Ok((message.bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use nix::unistd::pipe;

    #[test]
    fn descriptors_arrive_with_their_message_and_work() {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        )
        .unwrap();
        let (read, write) = pipe().unwrap();
        send_with_fds(ours.as_fd(), b"one", &[write.as_fd()]).unwrap();
        send_with_fds(ours.as_fd(), b"two", &[]).unwrap();
        drop(write);
        let mut buffer = [0; 8];
        let (length, mut got) = recv_with_fds(theirs.as_fd(), &mut buffer).unwrap();
        assert_eq!((&buffer[..length], got.len()), (b"one".as_slice(), 1));
        File::from(got.remove(0)).write_all(b"through").unwrap();
        let mut text = String::new();
        File::from(read).read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        let (length, got) = recv_with_fds(theirs.as_fd(), &mut buffer).unwrap();
        assert_eq!((&buffer[..length], got.len()), (b"two".as_slice(), 0));
        assert_eq!(
            recv_with_fds(theirs.as_fd(), &mut buffer).unwrap_err(),
            Errno::EAGAIN
        );
        send_with_fds(ours.as_fd(), b"far too long", &[]).unwrap();
        assert_eq!(
            recv_with_fds(theirs.as_fd(), &mut buffer).unwrap_err(),
            Errno::EMSGSIZE
        );
        drop(ours);
        assert_eq!(recv_with_fds(theirs.as_fd(), &mut buffer).unwrap().0, 0);
    }
}
