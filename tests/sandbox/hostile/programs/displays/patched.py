# does: changes all that shows things, for any program that comes after it
# expect: succeeded
# value: 7
# displays: 0

import builtins, posix, sys

place = display.__globals__
place["displays"]().forms_of = lambda *_: {"text/plain": "spoilt"}
place["displays"]().closed = True
place["from_json"] = place["show_rest"] = lambda *_: None
builtins.display = builtins.repr = lambda *_, **__: "spoilt"
sys.meta_path.clear()
display("spoilt")
7
