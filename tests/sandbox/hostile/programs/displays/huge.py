# does: shows a picture of a gigabyte, and one that says it is a text of a gigabyte
# expect: succeeded
# value: 7
# completed: true
# displays: 0
# displays_dropped: 2

class Picture:
    def _repr_png_(self):
        return bytes(1 << 30)


class Text:
    def _repr_html_(self):
        class Long(str):
            def __len__(self):
                return 3

        return Long("x" * (9 << 20))


display(Picture(), Text())
7
