# does: shows what no notebook would: forms of the wrong types, names that are none, bundles that lie
# expect: succeeded
# value: 7
# completed: true
# displays: 2
# displays_dropped: 6

class Lying(dict):
    def items(self):
        return [("text/plain", "lies")] * 5


class Thing:
    def __init__(self, answer):
        self.answer = answer

    def _repr_mimebundle_(self, include=None, exclude=None):
        return self.answer


endless = []
endless.append(endless)
for forms in (
    {"image/png": "not base64!"},
    {"image/png": 7},
    {"text/plain": object()},
    {"application/json": endless},
    {"x" * 300: "long"},
    {7: "no name"},
):
    display(forms, raw=True)
display(Thing(Lying()), Thing(7))
7
