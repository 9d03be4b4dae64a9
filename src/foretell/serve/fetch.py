"""Images from where a request says they are: data: and http(s) URLs, read so that nobody reaches through the server.

What holds: no socket is opened to an address that was not checked. Names are looked up once a hop, every address that
a name has must be public, and the very addresses that were checked are dialled. A URL has one reading, the pattern
below; what does not match it is refused, not repaired. The media type that a URL or a server declares is ignored: the
bytes decide, and only PNG, JPEG, WebP and GIF are read.
"""

from __future__ import annotations

import asyncio
import binascii
import re
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address
from ssl import SSLContext
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from foretell.errors import ImageError, OverloadedError
from foretell.images import open_image
from foretell.serve.addresses import Address, is_public
from foretell.serve.urls import follow, is_name, parse_url

_DATA = re.compile(r"data:image/(?:png|jpe?g|webp|gif);base64,", re.IGNORECASE | re.ASCII)

_HEADERS = {
    "User-Agent": "foretell",
    "Accept": "image/png, image/jpeg, image/webp, image/gif",
    "Accept-Encoding": "identity",
}
# One text for names that have no address and names that have a private one: it must not tell which names exist inside.
_NOWHERE = "The image's host has no public address. Give a public URL, or send the image as a data: URL."


@dataclass(frozen=True)
class FetchLimits:
    """Limits of an ImageFetcher.

    image_bytes: of one image. all_bytes, images: of the images of one request. redirects: followed for an image.
    connect_s: seconds to look up, dial and agree on keys, each hop. total_s: seconds for an image. concurrency: images
    fetched at once.
    """

    image_bytes: int = 20_000_000
    all_bytes: int = 50_000_000
    images: int = 32
    redirects: int = 3
    connect_s: float = 5.0
    total_s: float = 20.0
    concurrency: int = 16


class ImageFetcher:
    """Fetches images for requests, a connection for each: nothing is shared between two fetches.

    ports: those that may be dialled. is_allowed: which addresses may be. resolve: the addresses of a host name.
    tls: a context to verify servers by, in place of the system's. `close` it when done.
    """

    def __init__(
        self,
        limits: FetchLimits = FetchLimits(),
        *,
        ports: Collection[int] = (80, 443),
        is_allowed: Callable[[Address], bool] = is_public,
        resolve: Callable[[str], Awaitable[Iterable[str]]] | None = None,
        tls: SSLContext | None = None,
    ) -> None:
        self.limits = limits
        self._ports, self._is_allowed, self._resolve, self._tls = ports, is_allowed, resolve or self._look_up, tls
        self._gate = asyncio.Semaphore(limits.concurrency)
        # Threads of its own, since a look-up cannot be stopped: slow name servers hold up fetches, and nothing else.
        self._threads = ThreadPoolExecutor(limits.concurrency, "look-up")

    async def get(self, url: str) -> bytes:
        """The bytes of the image at a data: or http(s) URL: of an allowed kind and size by its header, not yet decoded.

        Raises ImageError, fit to be shown to whoever asked, and OverloadedError where too many wait.
        """
        if _DATA.match(url):
            data = self._decoded(url)
        else:
            data = await self._in_time(parse_url(url, self._ports))
        await asyncio.to_thread(open_image, data)
        return data

    async def get_all(self, urls: Sequence[str]) -> list[bytes]:
        """The images of one request, in order; a URL that is repeated is fetched once. Raises as `get` does."""
        if len(urls) > self.limits.images:
            raise ImageError(f"The request has {len(urls)} images; at most {self.limits.images} are read.")
        size = 0

        async def one(url: str) -> bytes:
            nonlocal size
            data = await self.get(url)
            if (size := size + len(data)) > self.limits.all_bytes:
                raise ImageError(f"The request's images have more than {self.limits.all_bytes:,} bytes. Send fewer.")
            return data

        tasks = {url: asyncio.create_task(one(url)) for url in dict.fromkeys(urls)}
        try:
            await asyncio.gather(*tasks.values())
        finally:
            for task in tasks.values():
                task.cancel()
        return [tasks[url].result() for url in urls]

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _decoded(self, url: str) -> bytes:
        text, most = url[url.index(",") + 1 :], self.limits.image_bytes
        if len(text) * 3 // 4 - text[-2:].count("=") > most:
            raise ImageError(f"The image has more than {most:,} bytes. Make it smaller.")
        try:
            if len(text) % 4 or text.endswith("==="):  # which strict mode lets pass
                raise binascii.Error("Incorrect padding")
            return binascii.a2b_base64(text, strict_mode=True)
        except ValueError as error:  # characters that are not ASCII are no binascii.Error
            why = error if isinstance(error, binascii.Error) else "not ASCII"
            raise ImageError(f"The image's base64 is damaged ({why}). Encode it again, without line breaks.") from error

    async def _in_time(self, url: URL) -> bytes:
        begun, most = False, self.limits.total_s
        try:
            async with asyncio.timeout(most) as clock, self._gate:
                begun = True
                clock.reschedule(asyncio.get_running_loop().time() + most)
                return await self._download(url)
        except TimeoutError as error:
            if not begun:
                raise OverloadedError("Too many images are being fetched. Try again later.") from error
            raise ImageError(f"The image did not arrive within {most:g} s. Send it as a data: URL.") from error

    async def _download(self, url: URL) -> bytes:
        connector = aiohttp.TCPConnector(
            resolver=_CheckedResolver(self._checked),
            use_dns_cache=False,
            force_close=True,
            socket_factory=self._socket,
            ssl=self._tls or True,
        )
        session = aiohttp.ClientSession(
            connector=connector,
            headers=_HEADERS,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None, connect=self.limits.connect_s),
        )
        try:
            async with session:
                for _ in range(self.limits.redirects + 1):
                    if not is_name(url.raw_host or ""):  # aiohttp asks no resolver about an address
                        await self._checked(url.raw_host or "")
                    async with session.get(url, allow_redirects=False) as response:
                        if response.status not in (301, 302, 303, 307, 308):
                            return await self._read(response)
                        url = follow(url, response.headers.get("location", ""), self._ports)
        except aiohttp.ServerTimeoutError as error:
            seconds = self.limits.connect_s
            raise ImageError(f"The image's server could not be reached within {seconds:g} s.") from error
        except aiohttp.ClientSSLError as error:
            raise ImageError("The image's server has no certificate that can be trusted for its name.") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ImageError("The image's server could not be reached, or broke off its answer.") from error
        raise ImageError(f"The image's URL redirects more than {self.limits.redirects} times. Give the last of them.")

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        if response.status != 200:
            raise ImageError(f"The image's server answered with status {response.status}. Check the URL.")
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise ImageError("The image's server compresses its answer, which was not asked for and is not read.")
        found, most = bytearray(), self.limits.image_bytes
        too_long = ImageError(f"The image has more than {most:,} bytes. Make it smaller.")
        if (response.content_length or 0) > most:
            raise too_long
        async for piece in response.content.iter_any():  # a length that was declared need not be true
            found += piece
            if len(found) > most:
                raise too_long
        return bytes(found)

    async def _look_up(self, host: str) -> Iterable[str]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        )
        return [str(address[0]) for *_, address in found]

    async def _checked(self, host: str) -> list[Address]:
        """All addresses of a host. Raises ImageError where it has none, or one that is not allowed."""
        try:
            texts = await self._resolve(host) if is_name(host) else [host]
            found = [ip_address(text) for text in texts]
        except (OSError, ValueError) as error:
            raise ImageError(_NOWHERE) from error
        if not found or not all(self._is_allowed(address) for address in found):
            raise ImageError(_NOWHERE)
        return found

    def _socket(self, info: tuple[Any, ...]) -> socket.socket:
        """The socket for one address: the last place to refuse it, whichever way the address came here."""
        family, kind, protocol, _, address = info
        if not self._is_allowed(ip_address(address[0])):
            raise PermissionError("This address may not be dialled.")
        return socket.socket(family, kind, protocol)


class _CheckedResolver(AbstractResolver):
    def __init__(self, checked: Callable[[str], Awaitable[list[Address]]]) -> None:
        self._checked = checked

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in await self._checked(host)
        ]

    async def close(self) -> None:
        pass
