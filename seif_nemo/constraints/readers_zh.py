"""What a demand in Chinese says: 「恰好三个句子」, 「不超过两百字」, 「必须包含'创新'一词」.

字 is read as `Kind.WORDS` reads it, the way word processors count 字数: a CJK character is one, a Latin word or a
number is one, punctuation is none. 词 would need segmentation and is left to the judge; 单词 is a word of an alphabet.
"""

import re

from seif_nemo.constraints.numbers import Bound
from seif_nemo.constraints.phrasing import CLOSE, OPEN
from seif_nemo.constraints.readers_count import Bare, Found, bounded
from seif_nemo.constraints.specs import MAX_TEXT
from seif_nemo.types.constraints import Kind, Reading, Spec

_HAN = re.compile(r"[\u4e00-\u9fff]")
# Traditional characters that demands are written with, and full-width signs.
_SIMPLE = str.maketrans(
    "個詞彙數體與須應請應語標題內點單開頭結尾遠過於間這幾兩號寫讓從個條項極驚嘆問號為繁簡應該輸出給",
    "个词汇数体与须应请应语标题内点单开头结尾远过于间这几两号写让从个条项极惊叹问号为繁简应该输出给",
)
_WIDE = str.maketrans("，；：（）！０１２３４５６７８９～－—、", ",;:()!0123456789~--,")
_QUOTES = re.compile(r"'([^']++)'|\"([^\"]++)\"|“([^”]++)”|‘([^’]++)’|「([^」]++)」|『([^』]++)』|《([^》]++)》")

_DIGITS = {c: i for i, c in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_SCALES = {"十": 10, "百": 100, "千": 1000}
_ONE = "一二两三四五六七八九"
# Two digits side by side are no number: 「一二百」 is one or two hundred.
_NUMBER = rf"(?:\d[\d,]*|(?![{_ONE}十百千万零〇]*(?:[{_ONE}][{_ONE}零〇]|[零〇]{{2}}))[零〇{_ONE}十百千万]+)"
_ROUGHLY = rf"[{_ONE}]{{2}}(?![{_ONE}十百千万零〇])"  # 「两三」 is two or three

_UNITS: tuple[tuple[str, Kind, Bare], ...] = (
    (r"(?:汉字|中文字|中文字符|英文单词|单词|字)", Kind.WORDS, Bare.UNCLEAR),
    (r"字符", Kind.CHARACTERS, Bare.UNCLEAR),
    (r"(?:句子|句话|句)", Kind.SENTENCES, Bare.EXACT),
    (r"(?:段落|自然段|段话|段)", Kind.PARAGRAPHS, Bare.EXACT),
    (r"行", Kind.LINES, Bare.EXACT),
    (r"项目符号", Kind.BULLETS, Bare.EXACT),
    (r"(?:感叹号|惊叹号)", Kind.MARKS, Bare.AT_LEAST),
    (r"逗号", Kind.COMMAS, Bare.AT_LEAST),
)
_MARKS = {"感叹号": "!", "惊叹号": "!"}
_WHOLE = (
    r"(?:你的|您的|整个|整篇|全部|全文|文章|完整)*(?:回答|回复|答案|答复|输出|响应|回应|全文|正文|文章|"
    r"内容)(?:内容|结果|的内容)?"
)
_MUST = r"(?:必须|务必|需要|需|应该|应当|应|要|请|得|须|一定要|只能)"
_LEAD = (
    rf"(?:请|在)?(?:{_WHOLE})?(?:中|里)?,?(?:{_MUST})*+(?:将|把|以|用|使用|包含|包括|含有|有|写|撰写|写成|分成|分为|"
    rf"划分为|由|是|为|共|总共|控制|限制|限定)*(?:{_WHOLE})?(?:的?(?:总?字数|长度|篇幅|词汇数量|句子数|句数|段落数|"
    rf"段数|行数))?(?:{_MUST})*+"
)
_LOW = r"至少|不少于|不低于|最少|起码|不能少于|不得少于|不应少于|大于等于|不小于"
_HIGH = (
    r"最多|至多|不超过|不多于|不得超过|不能超过|不可超过|不应超过|不要超过|勿超过|不大于|限制在|限制为|限定在|"
    r"限定为|限定使用|限定|控制在|控制为|限于|限用|仅限|限|在"
)
_EXACT = r"恰好|正好|刚好|严格为|等于|仅使用|仅用|只用|仅|只|必须为|必须是"
_COUNT = re.compile(
    rf"{_LEAD}(?:(?P<low>{_LOW})|(?P<high>{_HIGH})|(?P<exact>{_EXACT})|(?P<more>超过|多于|大于)|(?P<less>少于|低于|"
    rf"小于))?"
    rf"(?:为|使用|用|包含|写|分成|分为)?(?:(?P<rough>{_ROUGHLY})|(?P<n>{_NUMBER})(?:(?:到|至|-|~)(?P<m>{_NUMBER}))?)"
    r"个?(?P<unit>汉字|中文字符|中文字|英文单词|单词|字符|字|句子|句话|句|段落|自然段|段话|段|行|项目符号|感叹号|"
    r"惊叹号|逗号)"
    r"(?P<after>(?:之内|以内|内|以下|之间|或更少|或以下|以上|或更多|或以上|左右)?)"
    rf"(?:来|进行|里|中)?(?:完成|组成|构成|长|的?篇幅)?(?:{_WHOLE}|作答|翻译|解释|分析|描述|改写|叙述|写作|撰写|"
    rf"展开分析)?"
)
_LENGTH_ONLY = re.compile(
    rf"(?:{_WHOLE}的?)?(?:总)?字数(?:{_MUST})*(?:限制|控制|限定)?(?P<op>在|为|不超过|不少于|至少|"
    rf"最多)?(?P<n>{_NUMBER})(?:(?:到|至|-|~)(?P<m>{_NUMBER}))?(?:之间|以内|内|以上)?"
)
_LIST = rf"{OPEN}[^{CLOSE}]+{CLOSE}(?:(?:和|与|及|以及|或|,|,和)?{OPEN}[^{CLOSE}]+{CLOSE})*"
_WORD = r"(?:特定|关键|以下|如下|指定|专业)*的?(?:词语|词汇|词|术语|关键词|短语|概念|字样|字|句子|句)?"
_USE = re.compile(
    rf"(?:请|在)?(?:{_WHOLE}|句子|描述|文|句)?(?:中|里)?,?(?:{_MUST})*(?:使用|包含|包括|含有|提及|提到|出现|用到|"
    rf"用){_WORD}[::]?"
    rf"(?P<list>{_LIST})(?:这)?(?:{_NUMBER}|几)?个?(?:一词|词语|词汇|精确术语|词|术语|关键词|短语|字|"
    rf"概念)?(?:至少(?P<n>{_NUMBER})次)?(?P<more>,?(?:来|进行|以(?!外)).*)?"
)
_BAN = re.compile(
    rf"(?:请|在)?(?:{_WHOLE})?(?:中|里)?,?(?:不得|不要|不能|禁止|避免|请勿|不可|不允许|不应|切勿|"
    rf"严禁)(?:再)?(?:使用|包含|包括|出现|提及|提到|含有|用到){_WORD}"
    rf"(?P<list>{_LIST})(?:这)?(?:{_NUMBER}|几)?个?(?:一词|等词|词语|词汇|词|字|术语|短语)?"
)
_END = re.compile(
    rf"(?:{_WHOLE})?(?:{_MUST})*(?:(?:以|用)(?:{_WORD})?(?P<text>{OPEN}[^{CLOSE}]+{CLOSE})(?:一词|一句)?(?:作为|为|"
    rf"来)?(?P<end>开头|开始|结尾|结束|收尾)"
    rf"|(?:在)?(?P<end2>开头|结尾)(?:{_MUST})*(?:使用|用|写|为|是)(?P<text2>{OPEN}[^{CLOSE}]+{CLOSE}))"
)
_LANGUAGES = {
    **dict.fromkeys(("中文", "汉语", "简体中文", "简体", "普通话"), "zh"),
    **dict.fromkeys(("繁体中文", "繁体", "正体中文"), "zh+"),
    **dict.fromkeys(("英文", "英语"), "en"),
    **dict.fromkeys(("日文", "日语"), "ja"),
    **dict.fromkeys(("韩文", "韩语"), "ko"),
    **dict.fromkeys(("法文", "法语"), "fr"),
    **dict.fromkeys(("德文", "德语"), "de"),
    **dict.fromkeys(("西班牙文", "西班牙语"), "es"),
    **dict.fromkeys(("俄文", "俄语"), "ru"),
}
_LANGUAGE = re.compile(
    rf"(?:请|在)?(?:{_WHOLE})?(?:{_MUST})*(?:仅|只|限|全部|全程)?(?:使用|用|以|采用|为|是)?"
    rf"(?P<name>{'|'.join(sorted(_LANGUAGES, key=len, reverse=True))})(?:来|进行)?(?:回答|回复|作答|撰写|写作|书写|"
    rf"输出|写|答复)?(?:问题)?"
)
_FORMAT = re.compile(
    rf"(?:请|将)?(?:{_WHOLE})?(?:的)?(?:格式)?(?:{_MUST})*(?:以|用|使用|采用|按照|按|为)*(?:有效的|"
    rf"合法的)?(?P<format>json|markdown)(?:的)?(?:格式|语法|形式)?"
    rf"(?:来|进行|完整)?(?:输出|回答|回复|呈现|书写|撰写|编写|排版|返回|给出)?(?:{_WHOLE}|翻译结果)?",
    re.IGNORECASE,
)
_CASE = re.compile(
    rf"(?:{_WHOLE})?(?:{_MUST})*(?:全部|全文|只|仅|都)*(?:使用|用|为|以)?(?:英文|英语)?(?P<case>小写|"
    rf"大写)(?:英文)?(?:字母)?(?:书写|输出|回答)?"
)
_NO = (
    r"(?:请|在)?(?:回答|全文)?(?:中|里)?,?(?:不得|不要|不能|禁止|避免|请勿|不可|不允许|严禁)(?:使用|包含|出现|"
    r"有)(?:任何)?"
)
_NO_MARKS = re.compile(rf"{_NO}(?P<what>标点符号|标点|逗号|感叹号|惊叹号|问号|阿拉伯数字|数字|大写字母|小写字母)")
_HEDGES = re.compile(
    r"除非|如果|或|若|每|除了|但|可选|尽量|左右|大约|约|除外|不包括|不含|不计|不算|以外|例外|可以|允许|不受"
)
_CHANGES_WORD = re.compile(r"除|以外|翻译[成为]|复数|时态|过去式|反义|同义|近义")
_CLAUSE_END = re.compile(rf"[;。!]|,(?!{OPEN})")


def _simplify(text: str) -> str:
    def quote(match: re.Match[str]) -> str:
        return f"{OPEN}{next(group for group in match.groups() if group is not None).strip()}{CLOSE}"

    quoted = _QUOTES.sub(quote, text)
    parts = re.split(rf"({OPEN}[^{CLOSE}]*{CLOSE})", quoted)  # quotations stay as they are
    plain = "".join(p if p[:1] == OPEN else re.sub(r"\s+", "", p).translate(_SIMPLE).translate(_WIDE) for p in parts)
    return plain.strip().rstrip("。.!;,")


def parse_chinese_number(text: str) -> int:
    """Value of digits or of Chinese number words below 10^8, such as 「两百五十」."""
    if text[0].isdigit():
        return int(text.replace(",", "")[:12])
    total = section = digit = 0
    for char in text:
        if char == "万":
            total, section, digit = (total + section + digit or 1) * 10_000, 0, 0
        elif char in _SCALES:
            section += max(digit, 1) * _SCALES[char]
            digit = 0
        else:
            digit = _DIGITS[char]
    if digit and len(text) > 1 and text[-2] in "百千":  # 「两百五」 is 250
        digit *= _SCALES[text[-2]] // 10
    return total + section + digit


def _bound(match: re.Match[str]) -> Bound | None:
    after = match["after"]
    is_range = match["rough"] is not None or match["m"] is not None
    if is_range:
        first, second = tuple(match["rough"]) if match["rough"] is not None else (match["n"], match["m"])
        # "At most 50 to 100" leaves open which.
        is_within = match["high"] is None or match["high"][0] in "限控在"
        if match["low"] or match["more"] or match["less"] or not is_within or after not in ("", "之间", "以内", "内"):
            return None
        low, high = parse_chinese_number(first), parse_chinese_number(second)
        # 「三两」 and 「一九」 are no such pairs.
        return Bound(low, high) if match["rough"] is None or 0 < high - low <= 2 else None
    n = parse_chinese_number(match["n"])
    up, down = after in ("以上", "或更多", "或以上"), after in ("之内", "以内", "内", "以下", "或更少", "或以下")
    if after in ("左右", "之间"):
        return None
    if match["low"] is not None:
        return None if down else Bound(n, None)
    if match["high"] is not None:
        return None if up or (match["high"] == "在" and not down) else Bound(0, n)
    if match["more"] is not None:
        return None if down else Bound(n + 1, None)
    if match["less"] is not None:
        return None if up else Bound(0, n - 1)
    if up or down:
        return Bound(n, None) if up else Bound(0, n)
    return Bound(n, n, bare=match["exact"] is None)


def _read_count(text: str) -> Found | None:
    match = _COUNT.fullmatch(text)
    if match is not None:
        unit, bound = match["unit"], _bound(match)
        kind, bare = next((kind, bare) for pattern, kind, bare in _UNITS if re.fullmatch(pattern, unit))
        limiting = re.search(r"限|控制", text) is not None
        if bound is not None and bound.bare and "含" in text:  # 「包含一个句子」: among others
            found = bounded(kind, Bound(bound.low, None), bare, limiting=False, text=_MARKS.get(unit))
            return None if found is None else Found(Reading.NECESSARY, found.spec)
        return None if bound is None else bounded(kind, bound, bare, limiting=limiting, text=_MARKS.get(unit))
    match = _LENGTH_ONLY.fullmatch(text)
    if match is None:
        return None
    n = parse_chinese_number(match["n"])
    if match["m"] is not None and (match["op"] in ("不超过", "不少于", "至少", "最多") or text.endswith("以上")):
        return None
    if match["m"] is not None:
        return bounded(Kind.WORDS, Bound(n, parse_chinese_number(match["m"])), Bare.UNCLEAR, limiting=False)
    low = match["op"] in ("不少于", "至少") or text.endswith("以上")
    high = match["op"] in ("不超过", "最多") or "限" in text or text.endswith(("以内", "内"))
    return (
        bounded(Kind.WORDS, Bound(n, None) if low else Bound(0, n), Bare.UNCLEAR, limiting=False)
        if low != high
        else None
    )


def _phrases(text: str) -> list[str]:
    return list(dict.fromkeys(p.strip() for p in re.findall(rf"{OPEN}([^{CLOSE}]+){CLOSE}", text) if p.strip()))


def _read_words(text: str) -> Found | None:
    match, low, high = _BAN.fullmatch(text), 0, 0
    reading = Reading.NECESSARY if "等词" in text else Reading.EQUIVALENT
    if match is None:
        match, low, high = _USE.fullmatch(text), 1, None
        if match is None or "或" in match["list"] or _CHANGES_WORD.search(match["more"] or "") is not None:
            return None
        low = parse_chinese_number(match["n"]) if match["n"] is not None else 1
        reading = Reading.NECESSARY if match["more"] else Reading.EQUIVALENT
    phrases = _phrases(match["list"])
    if not phrases or any(len(phrase) > MAX_TEXT for phrase in phrases):
        return None
    kind = Kind.KEYWORD if len(phrases) == 1 else Kind.KEYWORDS
    return Found(reading, Spec(kind, low=low, high=high, text="\n".join(phrases)))


def _read_end(text: str) -> Found | None:
    match = _END.fullmatch(text)
    if match is None:
        return None
    phrase = _phrases(match["text"] or match["text2"])[:1]
    at_start = (match["end"] or match["end2"]).startswith("开")
    core = phrase[0].rstrip(".,;: ") if phrase else ""
    return (
        Found(Reading.EQUIVALENT, Spec(Kind.STARTS_WITH if at_start else Kind.ENDS_WITH, text=core)) if core else None
    )


def _read_form(text: str) -> Found | None:
    if (match := _LANGUAGE.fullmatch(text)) is not None and not text.startswith(match["name"]):
        code = _LANGUAGES[match["name"]]
        return Found(Reading.NECESSARY if code == "zh+" else Reading.EQUIVALENT, Spec(Kind.LANGUAGE, text=code[:2]))
    if (match := _FORMAT.fullmatch(text)) is not None:
        return Found(Reading.EQUIVALENT, Spec(Kind.JSON if match["format"].lower() == "json" else Kind.MARKDOWN))
    if (match := _CASE.fullmatch(text)) is not None:
        return Found(Reading.EQUIVALENT, Spec(Kind.LOWERCASE if match["case"] == "小写" else Kind.UPPERCASE))
    if (match := _NO_MARKS.fullmatch(text)) is not None:
        what = match["what"]
        if what.startswith("标点"):
            return Found(Reading.EQUIVALENT, Spec(Kind.MARKS, high=0))
        if what.endswith("数字"):
            reading = Reading.EQUIVALENT if what == "阿拉伯数字" else Reading.NECESSARY
            return Found(reading, Spec(Kind.DIGITS, high=0))
        if what.endswith("字母"):
            return Found(Reading.EQUIVALENT, Spec(Kind.LOWERCASE if what.startswith("大") else Kind.UPPERCASE))
        if what == "逗号":
            return Found(Reading.EQUIVALENT, Spec(Kind.COMMAS, high=0))
        return Found(Reading.EQUIVALENT, Spec(Kind.MARKS, high=0, text="?" if what == "问号" else "!"))
    return None


def _read(text: str) -> Found | None:
    for reader in (_read_count, _read_words, _read_end, _read_form):
        if (found := reader(text)) is not None:
            return found
    return None


def is_chinese(text: str) -> bool:
    """Whether a demand is written in Chinese: two Chinese characters at least, and no fewer than Latin letters."""
    han = len(_HAN.findall(re.sub(_QUOTES, "", text)))
    return han >= 2 and 3 * han >= sum(c.isascii() and c.isalpha() for c in text)


def read_chinese(text: str) -> Found | None:
    """What a demand in Chinese says: of the whole, or of its first clause where the rest can only add to it."""
    simple = _simplify(text)
    found = _read(simple)
    if found is not None:
        return found
    end = _CLAUSE_END.search(simple)
    if end is None or _HEDGES.search(simple) is not None:
        return None
    first = _read(simple[: end.start()])
    return Found(Reading.NECESSARY, first.spec) if first is not None and first.spec is not None else None
