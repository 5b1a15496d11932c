"""What TLS to a host trusts, and how it shows who we are: the system's authorities, and Docker's certs.d.

    HOST[:PORT]/NAME.crt     an authority, besides the system's
    HOST[:PORT]/NAME.cert    our certificate, with its key in NAME.key

SSL_CERT_FILE and SSL_CERT_DIR name other places for the system's authorities: OpenSSL itself reads them.
"""

from __future__ import annotations

import os
import ssl

from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def context(host: str, verify: bool, directories: Sequence[str]) -> ssl.SSLContext:
    """The TLS settings for "name" or "name:port". Raises `InvalidParameter` for a file of certs.d that cannot be used."""
    if verify:
        made = ssl.create_default_context()
        # From Python 3.13 on it is set, and refuses authorities that Docker, and we before, take: most that people have made themselves, without
        # the extension "key usage".
        made.verify_flags &= ~ssl.VERIFY_X509_STRICT
    else:
        # Without the system's authorities: to read them takes longer than a small pull.
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    for directory in directories:
        path = f"{directory}/{host}"
        if os.path.isdir(path):
            _add(made, path)
            break  # One directory says all of a host, as the first one that a reader finds.
    return made


def _add(made: ssl.SSLContext, directory: str) -> None:
    names = sorted(os.listdir(directory))
    for name in names:
        path = f"{directory}/{name}"
        stem, _, kind = name.rpartition(".")
        try:
            if kind == "crt":
                made.load_verify_locations(cafile=path)
            elif kind == "cert":
                if f"{stem}.key" not in names:
                    raise InvalidParameter(
                        f"missing key {stem}.key for client certificate {path}: CA certificates must use the extension .crt"
                    )
                made.load_cert_chain(path, f"{directory}/{stem}.key")
            elif kind == "key" and f"{stem}.cert" not in names:
                raise InvalidParameter(f"missing client certificate {stem}.cert for key {path}")
        except (ssl.SSLError, OSError) as e:
            raise InvalidParameter(f"{path} cannot be used: {e.strerror or e}") from None
