"""Tesseract: the text of one picture, which travels as base64 of a PNG, JPEG, TIFF or PNM file."""

import base64
import subprocess

MOST_BYTES = 1 << 20


class Reader:
    def load(self):
        # Fails here, and not at the first job, when the image is not whole.
        subprocess.run(["tesseract", "--version"], check=True, capture_output=True)

    def read(self, request):
        """The text of a picture: its base64, or a map with that as `image` and a page mode of tesseract's as `psm`."""
        if isinstance(request, str):
            request = {"image": request}
        picture = base64.b64decode(request["image"], validate=True)
        if len(picture) > MOST_BYTES:
            raise ValueError(f"picture of {len(picture)} bytes is above the cap of {MOST_BYTES}")
        mode = int(request.get("psm", 3))
        if not 0 <= mode <= 13:
            raise ValueError(f"page mode {mode} is not one of tesseract's (want 0 to 13)")
        command = ["tesseract", "stdin", "stdout", "-l", "eng", "--psm", str(mode)]
        done = subprocess.run(command, input=picture, capture_output=True)
        if done.returncode != 0:
            raise ValueError(done.stderr.decode(errors="replace").strip()[-500:] or "tesseract failed")
        return {"text": done.stdout.decode(errors="replace").strip()}
