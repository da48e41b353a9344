"""Tesseract: returns the text of a picture, a PNG, JPEG, TIFF or PNM file in base64."""

import base64
import subprocess

MOST_BYTES = 1 << 20


class Reader:
    def load(self):
        # If the image is incomplete, fail here and not at the first job.
        subprocess.run(["tesseract", "--version"], check=True, capture_output=True)

    def read(self, request):
        """Returns the text of a picture.

        `request` is the picture in base64, or a map with the picture as `image` and a page
        segmentation mode of tesseract as `psm`.
        """
        if isinstance(request, str):
            request = {"image": request}
        picture = base64.b64decode(request["image"], validate=True)
        if len(picture) > MOST_BYTES:
            raise ValueError(f"picture of {len(picture)} bytes is above the cap of {MOST_BYTES}")
        mode = int(request.get("psm", 3))
        if not 0 <= mode <= 13:
            raise ValueError(f"page mode {mode} is not valid (want 0 to 13)")
        command = ["tesseract", "stdin", "stdout", "-l", "eng", "--psm", str(mode)]
        done = subprocess.run(command, input=picture, capture_output=True)
        if done.returncode != 0:
            reason = done.stderr.decode(errors="replace").strip()[-500:]
            raise ValueError(reason or "tesseract failed")
        return {"text": done.stdout.decode(errors="replace").strip()}
