"""Source distributions (sdists) of Python packages: find one on an index, read one file of it.

The package is never built, imported or unpacked. The indexes are those that pip is configured to
ask: mirrors, folders (file://) and indexes with a password work as they do for pip.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import subprocess
import sys
import tarfile
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urldefrag, urljoin, urlsplit
from urllib.request import url2pathname

from srt.common.files import wait_for_lock, write_atomically
from srt.data.download.http import (
    TIMEOUT,
    UnavailableError,
    download,
    hide_secrets,
    public_address,
)
from srt.data.download.partial import FetchError

# Tests evaluate annotations, so that the name must exist. requests is imported only where it is
# used.
if TYPE_CHECKING:
    from requests import Session
else:
    Session = object

PYPI = "https://pypi.org/simple"
JSON_PAGE = "application/vnd.pypi.simple.v1+json"  # PEP 691; older indexes send HTML (PEP 503)


def sdist_path(package: str, version: str, folder: Path) -> Path:
    """Return the path that the archive of a package's version has in `folder`."""
    return folder / f"{_normalise(package).replace('-', '_')}-{version}.tar.gz"


def fetch_sdist(package: str, version: str, folder: Path) -> Path:
    """Return the archive of a package's version in `folder`; download it if it is not there.

    Raises:
        UnavailableError: no index has this version, or none can be reached.
        FetchError: what arrives has another sha256 than the index says.
    """
    archive = sdist_path(package, version, folder)
    folder.mkdir(parents=True, exist_ok=True)

    # Several jobs may need the same archive at the same time: one downloads it, the others wait.
    with wait_for_lock(folder / f".{archive.name}.lock"):
        if not archive.exists():
            address = find_sdist(package, version)
            sha256 = parse_qs(urlsplit(address).fragment).get("sha256", [None])[0]
            _bring(urldefrag(address).url, archive, sha256)
    return archive


def read_member(archive: Path, path: str, sha256: str) -> bytes:
    """Return the content of one file of an sdist, without unpacking anything.

    Args:
        path: of the file, below the archive's only top folder.
        sha256: of the file, all digits.

    Raises:
        FetchError: the file is not there, or has another sha256.
    """
    # The top folder has the package's name in one of several spellings.
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                if member.isfile() and member.name.partition("/")[2] == path:
                    stream = tar.extractfile(member)
                    content = stream.read() if stream else b""
                    break
            else:
                raise FetchError(f"{archive}: has no file {path}; check the source in params.yaml")
    except (tarfile.TarError, EOFError) as error:
        raise FetchError(f"{archive}: damaged ({error}); delete it to fetch it again") from error

    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256.lower():
        raise FetchError(
            f"{archive}: sha256 of {path} is {digest}, expected {sha256}; delete the archive to"
            " fetch it again"
        )
    return content


def find_sdist(package: str, version: str) -> str:
    """Return the address of an sdist, with its sha256 as `#sha256=...` if the index says it."""
    wanted = _normalise(f"{package}-{version}")
    addresses = index_addresses()
    if not addresses:
        raise UnavailableError(
            f"{package}=={version}: pip is configured to ask no index (no-index)"
        )

    # As pip does, go on with the next index if one does not answer.
    problems = []
    for index in addresses:
        page = f"{index.rstrip('/')}/{_normalise(package)}/"
        try:
            links = _read_file_page(page) if page.startswith("file:") else _read_web_page(page)
        except UnavailableError as error:
            problems.append(str(error))
            continue
        for link in links:
            name = Path(unquote(urlsplit(link).path)).name
            if name.endswith(".tar.gz") and _normalise(name.removesuffix(".tar.gz")) == wanted:
                return link
        problems.append(f"{public_address(page)} does not have it")
    raise UnavailableError(f"sdist of {package}=={version}: {'; '.join(problems)}")


def index_addresses() -> list[str]:
    """Return the addresses of the indexes that pip would ask, in its order; none for `no-index`."""
    # pip prints a line like global.index-url='https://...' for each value of its files. Without
    # pip, the environment and the default remain.
    command = [sys.executable, "-m", "pip", "config", "list"]
    listing = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    lines = [line.partition("=") for line in listing.splitlines()]
    values = {key: str(ast.literal_eval(value)) for key, separator, value in lines if separator}

    def setting(name: str) -> str:
        # The environment goes before the files.
        variable = f"PIP_{name.replace('-', '_').upper()}"
        return os.environ.get(variable) or values.get(f"global.{name}", "")

    if setting("no-index").lower() in ("1", "true", "yes", "on"):
        return []
    return [setting("index-url") or PYPI, *setting("extra-index-url").split()]


def _read_file_page(page: str) -> list[str]:
    """Return the links of an index's page in a folder; none if the index has no such package."""
    file = Path(url2pathname(urlsplit(page).path)) / "index.html"
    return _links_of_html(page, file.read_text()) if file.is_file() else []


def _read_web_page(page: str) -> list[str]:
    """Return the links of an index's page; none if the index has no such package.

    Raises:
        UnavailableError: the index cannot be reached, or refuses to answer.
    """
    import requests

    headers = {"Accept": f"{JSON_PAGE}, text/html;q=0.5"}
    try:
        with _patient_session() as session:
            answer = session.get(page, headers=headers, timeout=TIMEOUT)
        if answer.status_code == 404:
            return []
        answer.raise_for_status()
        if JSON_PAGE not in answer.headers.get("Content-Type", ""):
            return _links_of_html(answer.url, answer.text)
        return [
            _join(answer.url, f"{file['url']}#sha256={file['hashes'].get('sha256', '')}")
            for file in answer.json()["files"]
        ]
    except requests.RequestException as error:
        raise UnavailableError(f"{public_address(page)}: {hide_secrets(str(error))}") from error


def _patient_session() -> Session:
    """Return a session that tries a busy or unreachable server again, for a few seconds."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    retry = Retry(total=2, backoff_factor=1, status_forcelist=(429, 500, 502, 503, 504))
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    return session


class _LinkParser(HTMLParser):
    """Collects the targets of all links."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links += [value for name, value in attrs if name == "href" and value]


def _links_of_html(page: str, text: str) -> list[str]:
    """Return the addresses of all links of a page."""
    parser = _LinkParser()
    parser.feed(text)
    return [_join(page, link) for link in parser.links]


def _join(page: str, link: str) -> str:
    """Return a link's address. On the index's own server it has the index's user and password."""
    address = urlsplit(urljoin(page, link))
    netloc = urlsplit(page).netloc
    if address.netloc == netloc.rpartition("@")[2]:
        address = address._replace(netloc=netloc)
    return address.geturl()


def _bring(address: str, archive: Path, sha256: str | None) -> None:
    """Download a file, or copy it from an index that is a folder."""
    if not address.startswith("file:"):
        download(address, archive, sha256=sha256)
        return
    content = Path(url2pathname(urlsplit(address).path)).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if sha256 and digest != sha256:
        raise FetchError(f"{address}: sha256 is {digest}, but its index says {sha256}")
    write_atomically(archive, content)


def _normalise(name: str) -> str:
    """Return a name of a package in the spelling of PEP 503, by which indexes compare names."""
    return re.sub(r"[-_.]+", "-", name).lower()
