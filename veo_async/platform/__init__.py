"""
The vendor's platform beside the API: uploads of pictures, prices, the balance and the ledger.

    async with VeoSession(platform=AccountPlatform()) as veo:  # the account token: ACEDATACLOUD_PLATFORM_TOKEN
        job = veo.submit(ImageToVideo("she turns", ["portrait.jpg"]))

The platform is known from the vendor's own clients only, and is not documented. So nothing that does not ask for it
depends on it. Enter at `account`; `connection` speaks HTTP, and `answers`, `prices` and `json_logic` are pure.
"""

from .._submit.uploads import Uploader
from .account import AccountPlatform

__all__ = ["AccountPlatform", "Uploader"]
