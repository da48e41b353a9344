# does: fails with what few catch
# expect: failed
# value: null

class Out(BaseException):
    pass


raise Out
