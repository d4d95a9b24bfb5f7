"""The snippets of template_golden.py: one template a line in groups; each with the variables below."""

MESSAGES = [{"role": "system", "content": "S"}, {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
EXTRA = {
    "bos_token": "<s>", "name": "Ünal", "text": "  a b\tc\n\nd  ", "n": 5, "f": 2.5, "big": 9007199254740993, "yes": True, "no": None,
    "items": [3, 1, 2], "words": ["b", "A", "c", "a"], "nested": {"a": {"b": [1, {"c": "deep"}]}, "items": 1, "x-y": 2},
    "people": [{"name": "Zoe", "age": 30, "pet": {"kind": "cat"}}, {"name": "adam", "age": 25}, {"name": "Bob", "age": 30}],
    "mixed": [1, "1", 1.0, True, None, [1], {"k": 'v"\'\n'}], "html": "<a href='x'>\"&\"</a>", "empty": "", "nothing": [], "unicode": "ßéЖ🙂ﬁ İ",
}

EXPRESSIONS = r'''
1 + 2 * 3 ** 2
2 ** 3 ** 2
-2 ** 2
(-2) ** 2
2 ** -1
7 // 2, -7 // 2, 7 // -2, -7 // -2
7 % 3, -7 % 3, 7 % -3, -7 % -3
7.5 // 2, -7.5 // 2, 7.5 % 2, -7.5 % 2, 7.5 % -2
7 / 2, 6 / 2, 1 / 3
1 / 0
1 // 0
1 % 0
1.0 / 0
0.1 + 0.2, 1e16, 1e15, 123456789012345680.0, 1e-5, 0.0001, 1.5e300, 5e-324, -0.0
1e400, -1e400
1_000 + 0x1f + 0b101 + 0o17, 1_0.5_0
9223372036854775807
2 * 3.0, True + 1, True * 2, -True, +5, - 3
"a" + "b", "ab" * 3, 3 * "ab", "ab" * -1, [1] * 2 + [2], (1,) + (2, 3)
"a" + 1
"a" ~ 1 ~ none ~ true ~ 1.0 ~ [1, 'x'] ~ missing
1 ~ 2 + 3
1 < 2 < 3, 1 < 3 < 2, 1 == 1.0 == true, 3 > 2 >= 2 != 1
"a" < "b", "a" < "B", [1, 2] < [1, 3], (1,) < (1, 0), "é" > "z"
1 < "a"
none < 1
1 in [1, 2], 4 not in [1], "el" in "hello", "x" in nested, "a" in nested, 2 in (1, 2)
1 in "a"
1 in 1
"a" in none
"a" in missing
not true, not not 1, not 1 == 2, not none
1 and 0, 0 or "x", "" or none, 1 and 2 and 3, 0 and missing.foo
missing or "default"
"yes" if n > 3 else "no"
"yes" if n > 30
("yes" if n > 30) is undefined
1 if false else 2 if false else 3
items[0], items[-1], items[1:], items[:-1], items[::-1], items[::2], items[5:], items[-100:2]
items[5], items[true]
items["a"], items.a, items.0, items[0.5]
name[0], name[-1], name[1:3], name[::-1], name[10], unicode[3], unicode[::2], unicode[-1:]
items[::0]
items["a":]
missing[1:]
no[1:]
nested[1:]
nested.a.b[1].c, nested["a"]["b"][0], nested.a.b.1.c, nested["items"], nested["x-y"], nested.nope
nested.nope.deeper
none.foo, none.foo is defined
none.foo.bar
missing.foo
missing["foo"]
missing()
n.foo, n["foo"], n[0]
n()
nested.a.b[1:][0].c
[1, 2, [3, "x"]], (1,), (), (1, 2), {}, {"a": 1, 2: none, 1.5: [true]}, [ ], [1,], {"a": 1,}
{"a": 1, "a": 2, 1: "x", true: "y"}
{[1]: 2}
{(1, 2): 3}
"it's", 'say "x"', ['it\'s', "say \"x\"", 'both \' and "', "tab\t nl\n back\\ \x07 \u00e9 \u200b \U0001F600"]
"a\x41\u0042\103\
b \q \n" ~ 'x' "y"
'a' 'b'
"\ud800"
"\xZZ"
true, false, none, True, False, None
(1, 2)[0], "abc"[1], [1, 2, 3][-1]
range(3), range(1, 7, 2), range(5, 0, -2), range(3)|list, range(0)|list
range(0, 10)[2:5], range(10)[::3]|list, range(10)[-1], range(3)|length
range(100001)
range(100000)|length
range(1, 2, 0)
range("a")
range()
range(none)
dict(a=1, b="x"), dict({"a": 1}, b=2), dict([("x", 1), ["y", 2]]), dict()
dict(1)
dict([(1, 2, 3)])
namespace(a=1).a, namespace({"b": 2}).b, namespace(a=1)["a"], namespace().x
namespace(_a=1)
namespace(a=1)
cycler("a", "b").next(), cycler(1).current
cycler()
raise_exception("stop")
raise_exception()
raise_exception("with é and 'quotes'")
strftime_now("%Y-%m-%d %H:%M:%S"), strftime_now("%d %b %Y"), strftime_now("%A, %B %e, %j, %U %W %V %G, %I:%M %p, %y %% %-d/%-m %a"), strftime_now("%c|%x|%X|%D|%F|%T|%R|%Z|%z|%f|%u|%w|%C|%h|%k|%l|%P")
strftime_now("")
strftime_now()
strftime_now(1)
items.append(4)
items.append
items.append is defined, nested.update is defined, items.index is callable
nested.pop("a")
nested.update({})
items.copy(), items.count(1), items.index(2), (1, 1).count(1), nested.copy().keys()
items.index(9)
items.sort()
"abc".__class__
"abc".__class__.__mro__
"abc"._x
loop
caller is defined
bos_token, eos_token is defined, tools is none, documents is none, add_generation_prompt
messages|length, messages[0].role, messages[-1]['content'], messages[1]
1 == 1 is true
n is defined and n is not none
(n is defined)
n is not defined
[n is number, f is number, yes is number, "1" is number, n is integer, yes is integer, f is float, n is float]
[none is none, missing is none, yes is boolean, 1 is boolean, true is true, 1 is true, false is false, "a" is string, 1 is string]
[nested is mapping, items is mapping, items is sequence, "a" is sequence, nested is sequence, 5 is sequence, missing is sequence, range(1) is sequence]
[items is iterable, "a" is iterable, 5 is iterable, nested is iterable, missing is iterable, none is iterable, nested.items() is iterable]
[3 is odd, 4 is even, 4 is odd, 9 is divisibleby 3, 9 is divisibleby(4), 3.0 is odd]
"a" is odd
missing is odd
[1 is eq 1, 1 is equalto 2, 1 is ne 2, 1 is lt 2, 1 is lessthan 1, 2 is gt 1, 2 is greaterthan 3, 1 is ge 1, 1 is le 0, 1 is in [1], "a" is in "abc"]
["ABC" is upper, "abc" is lower, "aBc" is upper, "1" is upper, "1" is lower, "É" is upper, "" is lower, 1 is lower]
[none is sameas none, true is sameas true, items is sameas items, [] is sameas []]
[range is callable, "a".upper is callable, 5 is callable, missing is callable]
["upper" is filter, "nope" is filter, "odd" is test, "nope" is test]
1 is nope
n is defined is true
["" is escaped, ("<"|e) is escaped]
"x" is not none and "y" is string
1 is eq
1 is eq(1, 2)
text|trim, [text|trim], "xxaxx"|trim("x"), 5|trim, none|trim, missing|trim, ["　a\u00a0"|trim]
text|length, items|count, nested|length, missing|length, unicode|length, range(4)|length, nested.items()|length
5|length
none|length
items|map("string")|length
missing|default("d"), none|default("d"), none|d("d", true), ""|default("e", boolean=true), missing|default, 0|d(1)
missing.foo|default("d")
items|join, items|join(", "), words|join("-", attribute=none), people|join(",", attribute="name"), people|join(",", "age"), "abc"|join("."), nested|join(" "), mixed|join("/")
none|join
missing|join("x")
5|join
"heLLo wORld"|title, "it's o'neil-x (y) [z] {w} <v>"|title, "éa ßa"|title, "heLLo wORLD"|capitalize, "abc"|upper, "ÀÉß"|lower, unicode|upper, unicode|lower, unicode|title, 5|upper, none|lower, missing|upper, "ΑΣ ΑΣΑ"|lower, "ŉ ǆ"|upper, "ǆab ﬁx"|title
"heLLo wORld's".title(), "heLLo wORLD".capitalize(), "aBc".swapcase(), "ǆab ﬁx".title(), "ﬁx".capitalize(), "ß".upper()
"aaaa"|replace("a", "b"), "aaaa"|replace("a", "b", 2), "abc"|replace("", "-"), 515|replace(5, 6), "abc"|replace("b", ""), "aaa"|replace("aa", "b")
"a"|replace("a")
items|first, items|last, "abc"|first, "abc"|last, nested|first, nested|last, range(3)|last, nothing|first, nothing|last, ""|first
items|map("string")|first
items|map("string")|last
none|first
5|last
"12"|int, "12.7"|int, "x"|int, "x"|int(7), "ff"|int(0, 16), "0x1f"|int(base=16), "0b11"|int(0, 2), "0o17"|int(base=0), 3.9|int, -3.9|int, none|int, true|int, " 42 "|int, "1_000"|int, "1__0"|int, "1e3"|int, [1]|int(5), "nan"|int, "inf"|int
missing|int
"1.5"|float, "x"|float, "x"|float(2.5), 3|float, none|float, "1e3"|float, " 2 "|float, true|float, "inf"|float, "nan"|float, "1_0.5"|float
5|abs, -5|abs, -2.5|abs, true|abs
"a"|abs
2.5|round, 3.5|round, 2.675|round(2), 1234.5678|round(-2), 5|round, 1234|round(-2), 2.1|round(0, "ceil"), 2.9|round(0, "floor"), 2.123|round(2, "ceil"), -2.5|round, 42.55|round(1, "floor"), 7|round(1, "ceil")
2.5|round(0, "up")
"a"|round
items|sort, words|sort, words|sort(case_sensitive=true), items|sort(reverse=true), people|sort(attribute="age")|map(attribute="name")|list, people|sort(attribute="age,name")|map(attribute="name")|list, people|sort(attribute="name", reverse=true)|map(attribute="name")|list, "cab"|sort, nested|sort
mixed|sort
people|sort
[{}, {}]|sort, [missing, missing]|sort, {missing: 1}
items|reverse|list, "abc"|reverse, nested|reverse|list, (1, 2)|reverse|list
5|reverse
words|unique|list, [1, 1.0, true, 2]|unique|list, people|unique(attribute="age")|map(attribute="name")|list, words|unique(true)|list
[[1]]|unique|list
items|map("string")|list, people|map(attribute="name")|list, people|map(attribute="pet.kind")|list
people|map(attribute="pet.kind", default="none")|list, people|map(attribute="height", default=0)|list, words|map("upper")|join, items|map("default", 1)|list, words|map("replace", "a", "x")|list, nothing|map("upper")|list
items|map("nope")|list
items|map|list
items|map(attribute="a", foo=1)|list
[0, 1, "", "a"]|select|list, items|select("odd")|list, items|select("gt", 1)|list, items|reject("odd")|list, [0, 1]|reject|list, items|select("in", [1, 2])|list
people|selectattr("pet")|map(attribute="name")|list, people|selectattr("age", "equalto", 30)|map(attribute="name")|list, people|rejectattr("age", "eq", 30)|list|length, people|selectattr("name", "defined")|list|length, people|selectattr("pet.kind", "undefined")|list|length
people|selectattr|list
people|selectattr("a", "nope")|list
true if (nothing|select) else false
(nothing|select|list|length) == 0
nested|items|list|length, nested.a|items|list, missing|items|list, {}|items|list
nested.a.items(), nested.a.keys(), nested.a.values(), nested.a.items()|list, nested.keys()|list
nested|dictsort|length, {"b": 1, "A": 2, "c": 0}|dictsort, {"b": 1, "A": 2}|dictsort(true), {"b": 1, "A": 2}|dictsort(by="value"), {"b": 1, "A": 2}|dictsort(reverse=true)
{"b": 1}|dictsort(by="x")
[1, 2, 3, 4, 5]|batch(2)|list, [1, 2, 3]|batch(2, "x")|list, [1, 2, 3, 4, 5]|slice(2)|list, [1, 2, 3, 4, 5]|slice(3, "x")|list, nothing|batch(2)|list
items|sum, [1.5, 2]|sum, people|sum(attribute="age"), items|sum(start=10), nothing|sum, [[1], [2]]|sum(start=[])
["a"]|sum
items|min, items|max, words|min, words|max, words|min(case_sensitive=true), people|max(attribute="age"), nothing|min, "hello"|max
mixed|max
"a\nb\n\nc"|indent, "a\nb\n\nc"|indent(2, true), "a\nb\n\nc"|indent(2, blank=true), "a\nb"|indent(width="> "), "a\r\nb\u2028c"|indent, ""|indent(2, true)
5|indent
nested|tojson, mixed|tojson, unicode|tojson, html|tojson, "\u2028 \x7f \x01 / \b\f"|tojson, 1.0|tojson, 1e100|tojson, none|tojson, true|tojson, []|tojson, {}|tojson, (1, 2)|tojson, {1: 2, none: 3, true: 4, 1.5: 5}|tojson
nested|tojson(indent=2), [[], {}, [1]]|tojson(indent=4), nested|tojson(indent=0), nested|tojson(indent="--"), [1, 2]|tojson(separators=(",", ":")), {"a": [1]}|tojson(indent=2, separators=(",", " : ")), {"b": 1, "a": {"d": 1, "c": 2}}|tojson(sort_keys=true), unicode|tojson(ensure_ascii=true), {"é": "🙂"}|tojson(true, 1), nested|tojson(indent=none), [1]|tojson(indent=true)
missing|tojson
range(3)|tojson
nested.items()|tojson
namespace(a=1)|tojson
{"a": missing}|tojson
{1: 1, "a": 2}|tojson(sort_keys=true)
{(1, 2): 3}|tojson
[1]|tojson(foo=1)
"inf"|float|tojson, "nan"|float|tojson
html|e, html|escape|e, html|safe, html|safe|e, html|forceescape, (html|e)|forceescape, 5|e, none|e, missing|e
(html|safe) ~ "<b>", ("<a>"|e) + "<b>", "<b>" + ("<a>"|e), [html|safe], ("<"|safe)|upper, ("<a>"|safe)|replace("a", "<"), ("a<"|safe).upper() + "<"
"a b  c-d e_f 1.5 é"|wordcount
"foo bar baz qux"|truncate(9), "foo bar baz qux"|truncate(9, true), "foo bar baz qux"|truncate(11), "foo bar baz qux"|truncate(11, false, "...", 0), "foo"|truncate(2, end="")
"foo bar baz qux"|truncate(2)
"ab"|center(7) ~ "|", "abc"|center(8) ~ "|", "abcd"|center(3), "ab"|center
"%s and %d, %5.2f|%-5s|%05d|%x|%X|%o|%e|%g|%r|%%|%c|%+d|% d|%#x"|format("x", 3, 2.5, "l", 42, 255, 255, 8, 12345.678, 0.0001, "q", "c", 5, 6, 255)
"%s" % "a", "%s %s" % (1, none), "%(a)s-%(b)03d" % {"a": 1, "b": 2}, "%s" % [1], "100%%" % (), "%.3s|%5s|%-5s|" % ("abcdef", "x", "y"), "%d" % 3.9, "%s" % missing, "%i%u" % (1, 2), "%s" % {"a": 1}, "%5.1f%%" % 12.345, "%*d" % (5, 3)
"%s" % (1, 2)
"%s %s" % 1
"%d" % "a"
"%z" % 1
"a" % 1
"%(a)s" % 1
"{} {}".format(1, "a"), "{0} {1} {0}".format(1, 2), "{a} {b!r}".format(a=1, b="x"), "{:>5}|{:<5}|{:^5}|{:*^7}|{:05d}|{:.2f}|{:,}|{:x}|{:+d}|{:%}|{:e}".format("a", "b", "c", "d", 42, 3.14159, 1234567, 255, 5, 0.25, 12345.678), "{{}}".format(), "{0[1]} {1.a} {2[k]}".format([1, 2], namespace(a=3), {"k": "v"}), "{:{}}|".format("a", 4), "{!s:>4}".format(none), "{}".format([1, "a"])
"{} {0}".format(1)
"{}".format()
"{".format()
"}".format()
"{a}".format()
"{:d}".format("a")
"{:>5}".format([1])
"{0.__class__}".format(1)
"a b/c?d=é&x"|urlencode, {"a b": "c/d", "e": 1}|urlencode, 5|urlencode
1|filesizeformat, 999|filesizeformat, 1000|filesizeformat, 1500000|filesizeformat, 1024|filesizeformat(true), "2048"|filesizeformat(binary=true)
people|groupby("age")|length, people|groupby("age")|map(attribute="grouper")|list, (people|groupby("age")|first).list|length, people|groupby("pet.kind", default="no")|map("first")|list, words|groupby(0)|length
{"a": 1}|attr("a") is defined, namespace(a=1)|attr("a"), "x"|attr("upper") is callable
[1, [2, 3]]|string, 1.0|string, missing|string, none|string, true|string
"abc"|list, nested|list, (1, 2)|list, missing|list, items|map("string")|list
5|list
n|nope
n|upper(1)
n|upper|lower|trim
text.strip(), [text.lstrip(), text.rstrip()], "xyxaxy".strip("xy"), "xxa".lstrip("x"), "axx".rstrip("x"), "a".strip(none)
"a".strip(1)
"a".strip(chars="a")
text.split(), "a,b,,c".split(","), "a,b,c".split(",", 1), "a b c".split(none, 1), "a b  c ".split(maxsplit=1), "abc".split("x"), "".split(), "".split(","), "a--b--c".split("--", -1), " a b ".split(" "), "a b c d".rsplit(none, 2), "a,b,c".rsplit(",", 1), " a  b ".rsplit(), "a,b,c".rsplit(",", maxsplit=0)
"a b  c ".split(none, 0), " a b  c ".split(maxsplit=2), "  a b c ".rsplit(none, 1), "  a ".rsplit(none, 0), "a b ".rsplit(maxsplit=5), "  ".split(none, 0), " ".rsplit(none, 0)
"a".split("")
"a".split(1)
"a\nb\r\nc\rd\x0be\u2028f\n".splitlines(), "a\nb\n".splitlines(true), "".splitlines(), "a".splitlines(keepends=true)
"hello".startswith("he"), "hello".startswith(("x", "h")), "hello".startswith("l", 2), "hello".startswith("lo", 3, 4), "hello".endswith("lo"), "hello".endswith(("x", "o")), "hello".endswith("l", 0, 4), "a".startswith(""), "".endswith("")
"a".startswith(1)
"a".startswith(["a"])
"a".startswith()
"aXbX".replace("X", "-"), "aXbX".replace("X", "-", 1), "abc".replace("", "."), "éé".replace("", "-"), "abc".replace("", "-", 2)
"a".replace("a", 1)
"hello".find("l"), "hello".rfind("l"), "hello".find("z"), "hello".find("l", 3), "hello".index("e"), "hello".rindex("l"), "hello".count("l"), "hello".count(""), "éléphant".find("p"), "hello".find("", 9), "hello".find(""), "aaaa".count("aa"), "hello".rfind("l", 0, 3), "hello".find("l", -2)
"hello".index("z")
"-".join(["a", "b"]), "".join("abc"), ", ".join(nested.keys()), "-".join([])
"-".join([1])
"-".join(missing)
"123".isdigit(), "12a".isdigit(), "".isdigit(), "²".isdigit(), "²".isdecimal(), "½".isnumeric(), "٣".isdigit(), "abc".isalpha(), "é".isalpha(), "a1".isalnum(), " \t".isspace(), "".isspace(), "ABC".isupper(), "abc".islower(), "Abc Def".istitle(), "a_1".isidentifier(), "1a".isidentifier(), "abc".isascii(), "é".isascii(), "①".isdigit()
"prefix-x".removeprefix("prefix-"), "x.py".removesuffix(".py"), "x".removeprefix("y"), "x".removesuffix("")
"5".zfill(3), "-5".zfill(4), "abc".zfill(2), "+1".zfill(4), "".zfill(2)
"a".ljust(3, "."), "a".rjust(3), "a".center(4, "*"), "abc".ljust(2), "é".center(3, "→")
"a".ljust(3, "ab")
"a=b=c".partition("="), "a=b=c".rpartition("="), "abc".partition("x"), "abc".rpartition("x")
"a\tb".expandtabs(4), "\ta".expandtabs()
nested.get("a").b[0], nested.get("zz"), nested.get("zz", 5), nested.get("a", none) is mapping
nested.get()
nested.get([1])
nested.get("a", default=1)
"x".nope()
"x".upper(1)
"abc".upper().lower().title()
(1, 2, 3)|length, (1, 2) == (1, 2), [1] == (1,), {"a": 1} == {"a": 1.0}, "a" == "a", 1 == "1", none == false, missing == missing, missing == none, [missing] == [missing]
mixed, nested, [1.0, 2.50, 1e20, -0.0, 1e-7], {"k": none, "t": true}
{"a": {"b": {}}}, [[]], [{}], (("a",),), ["\\", "\n", "'", '"']
unicode, [unicode], ["\u00ad\u200b\u2028\ue000\U000e0001"], "\u00ad"
big, big * 1, 3000000000 * 3
items == [3, 1, 2] and words != []
'a' if 'b' in 'abc' and not 'z' in 'abc' else 'c'
((1))
()
(1,)
[*items]
dict(**nested.a)
"{} {}".format(*[1, 2])
"{a}".format(**{"a": 1})
dict(a=1, a=2)
dict(a=1, **{"a": 2})
range(*[1, 3])|list
range(**{"a": 1})
f(1, b=2, 3)
[1, 2
{"a": 1
(1, 2
"abc
1 +
a b
1 2
a.
a[
a|
a is
a if
{1}
{1, 2}
a := 1
a; b
a & b
a ? b : c
@a
$a
!a
1 === 1
1 <> 2
not
in
if
x for x in y
lambda: 1
1..2
.5
5.
1.5.5
1e
0777
0x
a.1b
a['b'
'''

BLOCKS = [
    "{% if n == 5 %}five{% elif n == 6 %}six{% else %}other{% endif %}",
    "{% if n == 6 %}six{% elif n == 5 %}five{% else %}other{% endif %}|{% if false %}a{% elif false %}b{% else %}{% if false %}c{% endif %}d{% endif %}",
    "{% if missing %}a{% else %}{% if true %}b{% endif %}c{% endif %}",
    "{% if a.b.c %}x{% endif %}", "{% if %}x{% endif %}", "{% if true %}x", "{% endif %}", "{% if true %}{% else %}{% else %}{% endif %}", "{% if 1, 2 %}t{% endif %}",
    "{% for i in items %}{{ i }}{% if not loop.last %}, {% endif %}{% endfor %}",
    "{% for i in items %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }};{% endfor %}",
    "{% for i in items %}[{{ loop.previtem }}<{{ i }}>{{ loop.nextitem }}]{% endfor %}",
    "{% for i in items %}{{ loop.cycle('odd', 'even') }} {% endfor %}", "{% for i in items %}{{ loop.cycle() }}{% endfor %}",
    "{% for i in [1, 1, 2, 2, 1] %}{% if loop.changed(i) %}{{ i }}{% endif %}{% endfor %}",
    "{% for i in nothing %}x{% else %}none{% endfor %}", "{% for i in missing %}x{% else %}none{% endfor %}", "{% for i in none %}x{% endfor %}", "{% for i in 5 %}x{% endfor %}",
    "{% for i in items if i > 1 %}{{ loop.index }}:{{ i }}/{{ loop.length }}{{ loop.last }} {% else %}none{% endfor %}",
    "{% for i in items if i > 10 %}{{ i }}{% else %}none{% endfor %}", "{% for i in items if loop.first %}{{ i }}{% endfor %}",
    "{% set ns = namespace(x=0) %}{% for i in items if ns.x < 2 %}{{ i }}{% set ns.x = ns.x + 1 %}{% endfor %}|{{ ns.x }}",
    "{% set ns = namespace(x=0) %}{% for i in items if ns.x < 2 %}{{ loop.last }}{{ i }}{% set ns.x = ns.x + 1 %}{% endfor %}|{{ ns.x }}",
    "{% for k, v in nested.a.items() %}{{ k }}={{ v }}{% endfor %}", "{% for k, v in [(1, 2), [3, 4]] %}{{ k + v }} {% endfor %}", "{% for (k, v) in [(1, 2)] %}{{ k + v }} {% endfor %}",
    "{% for a, b in [(1,)] %}x{% endfor %}", "{% for a, b in [(1, 2, 3)] %}x{% endfor %}", "{% for a, b in [1] %}x{% endfor %}", "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% for k in nested %}{{ k }} {% endfor %}", "{% for c in 'aé🙂' %}{{ c }}.{% endfor %}", "{% for a in 1, 2, 3 %}{{ a }}{% endfor %}", "{% for a in (1, 2) %}{{ a }}{% endfor %}",
    "{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{% for i in items %}{% break %}{% else %}e{% endfor %}", "{% for i in items %}{% continue %}{% else %}e{% endfor %}", "{% for i in items %}{% if i == 1 %}{% break %}{% endif %}{% else %}e{% endfor %}",
    "{% break %}", "{% continue %}", "{% for i in items %}{% for j in items %}{% if j == 1 %}{% break %}{% endif %}{{ i }}{{ j }} {% endfor %}{% endfor %}",
    "{% for i in items %}{% for j in nothing %}{% else %}{% break %}{% endfor %}{{ i }}{% endfor %}",
    "{% for i in items %}{% set x %}a{% break %}{% endset %}{{ x }}{% endfor %}", "{% for i in items %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}",
    "{% for i in items %}{% generation %}{% break %}{% endgeneration %}{% endfor %}", "{% for i in items %}{% filter upper %}a{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfilter %}{% endfor %}",
    "{% for n in [{'v': 1, 'c': [{'v': 2, 'c': [{'v': 3}]}]}, {'v': 4}] recursive %}{{ n.v }}({{ loop.depth }}){% if n.c %}[{{ loop(n.c) }}]{% endif %}{% endfor %}",
    "{% for n in [[1, [2]], [3]] recursive %}{% if n is sequence %}<{{ loop(n) }}>{% else %}{{ n }}{% endif %}{% endfor %}", "{% for n in items %}{{ loop(n) }}{% endfor %}",
    "{% for i in items %}{% for j in items %}{{ loop.index }}{% endfor %}{{ loop.index }};{% endfor %}", "{% for i in items %}{{ loop['index'] }}{{ loop.nope }}{% endfor %}{{ loop }}",
    "{% for i in items %}{% set outer = loop %}{% for j in [1] %}{{ outer.index }}{% endfor %}{% endfor %}",
    "{% for i in items %}{{ i }}", "{% for i items %}{% endfor %}", "{% for %}{% endfor %}", "{% for i in %}{% endfor %}", "{% for 1 in items %}{% endfor %}", "{% for a.b in items %}{% endfor %}", "{% endfor %}",
    "{% for i in items|sort|reverse %}{{ i }}{% endfor %}", "{% for m in messages[1:] %}{{ m.role }}{{ loop.index0 % 2 }}{% endfor %}", "{% for i in items|map('string') %}{{ loop.length }}{{ i }}{% endfor %}",
    "{% set x = 1 %}{% for i in items %}{{ x }}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}", "{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}",
    "{% for i in items %}{% if loop.first %}{% set y = i %}{% endif %}{{ y }}{% endfor %}{{ y is defined }}", "{% for i in [1, 2] %}{{ z }}{% set z = i %}{% endfor %}",
    "{% for i in items %}{% endfor %}{{ i is defined }}", "{% set i = 'out' %}{% for i in items %}{% endfor %}{{ i }}", "{% for n in [1] %}{{ n }}{% endfor %}{{ n }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set (c, d) = [3, 4] %}{{ c }}{{ d }}{% set e = 1, 2 %}{{ e }}{% set g, = [5] %}{{ g }}", "{% set a, b = 1 %}", "{% set a, b = [1] %}", "{% set 1 = 2 %}", "{% set a.b = 2 %}", "{% set a['b'] = 1 %}",
    "{% set ns = namespace(a=1, b=[]) %}{% set ns.a = ns.a + 1 %}{% set ns.c = 'x' %}{{ ns.a }}{{ ns.c }}{{ ns.b }}{{ ns.zz }}", "{% set ns = namespace() %}{% set ns._x = 1 %}", "{% set x = {} %}{% set x.y = 1 %}",
    "{% set ns = namespace(l=[]) %}{% for i in items %}{% set ns.l = ns.l + [i] %}{% endfor %}{{ ns.l }}", "{% set ns = namespace(a=1) %}{% set ns.a, b = 2, 3 %}{{ ns.a }}{{ b }}", "{{ namespace(items=1).items }}{{ namespace(a=missing).a is defined }}",
    "{% set x %}a{{ n }}b{% endset %}[{{ x }}]{{ x is string }}", "{% set x | upper | replace('A', '_') %}abc{% endset %}{{ x }}", "{% set x %}{% set inner = 1 %}{% endset %}{{ inner is defined }}", "{% set ns = namespace() %}{% set ns.x %}b{% endset %}{{ ns.x }}", "{% set x %}abc",
    "{% macro m(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, c=3) }} {{ m(b=1, a=2) }} {{ m() }} {{ m(1, 2, 3) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, z=2) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}",
    "{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(1, 2) }}", "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}{{ m() }}", "{% macro m(a=1, b) %}{% endmacro %}", "{% macro m(a %}{% endmacro %}", "{% macro m %}{% endmacro %}", "{% macro m() %}", "{% macro m(1) %}{% endmacro %}",
    "{% macro m() %}{{ x }}{% endmacro %}{% set x = 5 %}{{ m() }}", "{% set x = 1 %}{% macro m() %}{{ x }}{% set x = 2 %}{{ x }}{% endmacro %}{{ m() }}{{ x }}", "{% macro m() %}{{ n }}{{ caller is defined }}{% endmacro %}{{ m() }}", "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}",
    "{% macro a() %}A{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}", "{% macro m() %}x{% endmacro %}{{ m }}{{ m.name }}{{ m() ~ m()|upper }}{{ m is callable }}", "{{ later() }}{% macro later() %}{% endmacro %}", "{% for i in items %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{% endfor %}", "{% if true %}{% macro m() %}in{% endmacro %}{% endif %}{{ m() }}",
    "{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}body {{ n }}{% endcall %}", "{% macro m(x) %}[{{ caller(x, 2) }}]{% endmacro %}{% call(a, b=3) m(1) %}{{ a }}{{ b }}{% endcall %}", "{% macro m() %}x{% endmacro %}{% call m() %}b{% endcall %}", "{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}", "{% call n %}{% endcall %}", "{% macro m() %}{{ caller() }}{{ caller() }}{% endmacro %}{% call m() %}{% set z = 1 %}{{ z }}{% endcall %}{{ z is defined }}",
    "{% filter upper %}abc {{ name }}{% endfilter %}", "{% filter replace('a', 'b')|upper %}aa{% endfilter %}", "{% filter nope %}a{% endfilter %}", "{% filter trim %}  a  {% endfilter %}|", "{% filter indent(2) %}a\nb{% endfilter %}",
    "{% with a = 1, b = n %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}", "{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q is defined }}", "{% with a = 1, b = a %}{{ b }}{% endwith %}", "{% set a = 7 %}{% with a = 1, b = a %}{{ b }}{% endwith %}",
    "{% generation %}abc{% set g = 1 %}{% endgeneration %}{{ g is defined }}", "{%- generation -%}  x  {%- endgeneration -%} y", "{% generation %}",
    "{% block b %}in{% endblock %}", "{% block b %}in{% endblock b %}", "{% print 1, 'a', n %}", "{% print %}",
    "{% include 'x' %}", "{% import 'x' as y %}", "{% from 'x' import y %}", "{% extends 'x' %}", "{% if false %}{% include 'x' %}{% endif %}ok", "{% unknown %}", "{% do items.append(1) %}", "{% trans %}a{% endtrans %}", "{% debug %}",
    "{% raw %}{{ not }} {% this %}{% endraw %}", "a {%- raw -%}  {{ x }}  {%- endraw -%} b", "{% raw %}\n x\n{% endraw %}\ny", "{% raw %}", "{% endraw %}", "a\n  {% raw %} b {% endraw %}\n c", "{%+ raw %}x{%+ endraw +%}\n y",
    "{# comment #}a{#- c -#}  b {# x\ny #}c", "{# open", "a {#- c #} b", "a {# c -#}  b", "  {# c #}\nx", "{# a #}\n\n{# b #}\nx", "{#+ a +#}\nx", "{##}x", "{#-#} x", "{# {{ x }} {% y %} #}z", "{# #} #}",
    "{{ 1 }}\n", "{{ 1 }}\n\n", "\n{{ 1 }}", "a\n{% if true %}\nb\n{% endif %}\nc\n", "  {% if true %}\n  b\n  {% endif %}\n  c", "  {%+ if true %}\n  b\n  {%+ endif %}\nc", "a  {%- if true -%}  b  {%- endif -%}  c", "a\n\n  {%- if true %}\n b{% endif %}", "x {% if true +%}\ny{% endif %}", "x {% if true %}  \ny{% endif %}", "\t {% set a = 1 %} \t{{ a }}", "a {{- 1 -}} b", "a\n {{- 1 -}} \nb", "a {{+ 1 }} b", "{{ 1 +}}", "{%- set a = 1 -%}\n\n{{ a }}", "a\u00a0\u2003{%- if true %}x{% endif %}",
    "{% if true %}\r\na\r\n{% endif %}\r\nb\rc\r\n", "{{ 'a\r\nb' }}", "{{'}}'}}", "{{ '%}' }}{% set x = '%}' %}{{ x }}", "{{ {'a': {'b': 1}}['a']['b'] }}", "{{ {'a': {}} }}", "{{{'a': 1}}}", "{{ {} }}", "{{ }}", "{{", "{%", "{#", "{", "}", "}}", "%}", "{ {", "{{ 1 }", "{{ 1 %}", "{% if 1 }}", "{% %}", "{{ 1 }}}", "{{ (1 }}", "{{ 1) }}", "{{ [1) }}", "a{{ 1\n+\n2 }}b", "{%if true%}x{%endif%}", "{%-if true-%} x {%-endif-%}", "{% set\nx\n=\n1 %}{{x}}", "",  "plain text only", "  \n ", "\n", "\n\n",
    "{{ x }}{% set x = 1 %}{{ x }}", "{% set messages = [] %}{{ messages|length }}", "{% set loop = 1 %}{{ loop }}", "{% set range = 1 %}{{ range }}", "{{ range(2) }}{% set namespace = 1 %}{{ namespace }}", "{% set true = 1 %}", "{% set none = 1 %}",
    "{{ n|nope }}", "{% if false %}{{ n|nope }}{% endif %}ok", "{% if true %}{{ n|nope }}{% endif %}ok", "{% for i in nothing %}{{ n|nope }}{% endfor %}ok", "{{ (n|nope) if false else 'ok' }}", "{% if false %}{% for i in items %}{{ i is nope }}{% endfor %}{% endif %}ok", "{% macro m() %}{{ 1|nope }}{% endmacro %}ok", "{% if n is nope %}{% endif %}",
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|user|>\n' + m['content'] + eos_token }}{% elif m['role'] == 'assistant' %}{{ '<|a|>\n' + m['content'] }}{% endif %}{% endfor %}",
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ m.content }}{% endif %}{% endfor %}{{ messages|selectattr('role', 'equalto', 'user')|map(attribute='content')|join(',') }}",
    "{%- if messages[0]['role'] == 'system' -%}{%- set system = messages[0]['content'] -%}{%- set rest = messages[1:] -%}{%- else -%}{%- set rest = messages -%}{%- endif -%}{{ rest|length }}{{ system }}",
    "{% if (messages|length) % 2 == 1 %}{{ raise_exception('Roles must alternate: ' ~ messages[0].role) }}{% endif %}", "{{ messages|tojson(indent=4) }}", "{{ messages[0]|tojson }}{{ messages|map(attribute='role')|list }}",
    "{% set content = messages[1].content %}{% if content is string %}{{ content }}{% else %}{% for p in content %}{{ p.text }}{% endfor %}{% endif %}", "{{ messages[10].role }}", "{{ messages[10].role.x }}", "{% for m in messages %}{{ m.name|default('anon') }}{{ m.nope is defined }}{{ m.get('role')[0]|upper }}{% endfor %}",
    "{% set j = joiner(', ') %}{% for i in items %}{{ j() }}{{ i }}{% endfor %}", "{% set c = cycler('a', 'b') %}{% for i in items %}{{ c.next() }}{% endfor %}{{ c.current }}{{ c.reset() }}{{ c.current }}",
    "{% set g = items|map('string') %}{{ g|list }}{{ g|list }}", "{% set g = items|select %}{% for i in g %}{{ i }}{% endfor %}{% for i in g %}{{ i }}{% else %}gone{% endfor %}", "{% set g = items|map('string') %}{{ '1' in g }}{{ g|list }}{{ 1 if g else 0 }}", "{{ (items|map('string'))[0] is undefined }}",
    "{{ messages[0].items() }}{{ messages[0].keys()|list }}{{ (messages[0].values()|list)[0] }}", "{% for k, v in messages[0]|items %}{{ k }}{{ v }}{% endfor %}", "{% for k, v in messages[0]|dictsort %}{{ k }}{% endfor %}", "{% for g in people|groupby('age') %}{{ g.grouper }}:{{ g.list|map(attribute='name')|join(',') }} {% endfor %}", "{% for a, l in people|groupby('age') %}{{ a }}{{ l|length }}{% endfor %}",
    "{% macro p(t, d=0) %}{% if t is mapping %}{{ '{' }}{% for k, v in t|dictsort %}{{ k }}:{{ p(v, d + 1) }}{% if not loop.last %},{% endif %}{% endfor %}{{ '}' }}{% elif t is iterable and t is not string %}[{% for x in t %}{{ p(x, d + 1) }}{% endfor %}]{% else %}{{ t }}@{{ d }}{% endif %}{% endmacro %}{{ p(nested) }}",
    "{% set x = 'a' %}{% set x = x ~ 'b' %}{% set x = [x, x] %}{{ x }}", "{% set a = b = 1 %}", "{% set a %}{% endset %}[{{ a }}]", "{% set a = 1 if false %}{{ a is defined }}{{ a }}", "{{ 9223372036854775807 + 0 }}", "{{ -9223372036854775807 - 1 }}",
]

CONVERSATIONS = [
    {"template": "{% for m in messages %}{{ m }}{% endfor %}", "messages": [{"role": "assistant", "content": "x", "reasoning": "why"}, {"role": "user", "thinking": "t", "reasoning": "r"}, {"thinking": None, "reasoning_content": "c", "content": None}]},
    {"template": "{{ tools }}|{{ documents }}|{{ add_generation_prompt }}|{{ tools|length if tools else 'no' }}", "messages": [], "tools": [{"type": "function", "function": {"name": "f"}}], "documents": [{"title": "t", "text": "x"}], "add_generation_prompt": True},
    {"template": "{{ tools is defined }}{{ tools }}", "messages": [], "tools": []},
    {"template": "{{ messages }}{{ messages[0].role }}", "messages": []},
    {"template": "x", "messages": ["not an object"]},
    {"template": "{{ messages[0].content|tojson }}", "messages": [{"content": {"z": [1, 2.0, None, True, "é"], "a": {}}}]},
]


def cases():
    for line in EXPRESSIONS.strip("\n").replace("\\\nb", "\\\x00b").split("\n"):
        source = line.replace("\x00", "\n")
        yield {"template": "{{ " + source + " }}", "messages": MESSAGES, "extra": EXTRA}
    for template in BLOCKS:
        yield {"template": template, "messages": MESSAGES, "extra": EXTRA}
    yield from CONVERSATIONS
