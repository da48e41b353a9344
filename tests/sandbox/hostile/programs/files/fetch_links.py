# does: leaves links to the machine's files under the names that are fetched, in place of files and of directories
# expect: succeeded
# fetch: ["**"]
# files: {"plain": "mine"}
# not_fetched: {"etc": "not_a_file", "fd": "not_a_file", "shadow": "not_a_file", "up": "not_a_file"}
import os

os.symlink("/etc/shadow", "shadow")
os.symlink("/etc", "etc")
os.symlink("/proc/self/fd", "fd")
os.symlink("../../../..", "up")
open("plain", "w").write("mine")
