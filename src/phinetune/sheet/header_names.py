"""How people call the two columns, in the languages they call them in.

`rate("Kundenfrage:", QUESTION)` tells how surely a header names the question column.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from enum import IntEnum
from functools import cache, lru_cache


class Likeness(IntEnum):
    NONE = 0
    SIMILAR = 1
    """Holds such a word beside others: "Best Answer"."""
    EXACT = 2


@dataclass(frozen=True)
class Role:
    """What one of the two columns may be called; of several such columns an earlier line of names wins."""

    name: str
    names: tuple[str, ...]

    @property
    def ranks(self) -> dict[str, int]:
        return _ranks(self.names)


QUESTION = Role(
    "question",
    (
        "question, questions, q, ques, qs",
        "Frage, Fragen, question posée, pregunta, preguntas, pergunta, perguntas, questão, questões, domanda, domande",
        "quesito, vraag, vragen, pytanie, pytania, вопрос, вопросы, запитання, питання, soru, sorular",
        "otázka, otázky, întrebare, întrebări, ερώτηση, ερωτήσεις, kérdés, kérdések, въпрос, въпроси, pitanje",
        "fråga, frågor, spørgsmål, spørsmål, kysymys, kysymykset, suʼal, سؤال, السؤال, أسئلة, الأسئلة",
        "שאלה, שאלות, پرسش, سوال, प्रश्न, सवाल, প্রশ্ন, கேள்வி, ప్రశ్న",
        "问题, 問題, 提问, 提問, 问, 問, 问句, 疑问, 質問, 問い, 質問文, 질문, 문제, 물음, câu hỏi, hỏi",
        "pertanyaan, soalan, soal, tanong, คำถาม, swali",
        "prompt, prompts, query, queries, request, requests, problem, Anfrage, requête, consulta, richiesta, запрос, запит",
        "提示, 提示词, プロンプト, 프롬프트, istem, invite",
        "instruction, instructions, Anweisung, instrucción, instrução, istruzione, инструкция, 指令, 指示, 지시",
        "user, human, customer, client, Nutzer, Benutzer, Kunde, utilisateur, usuario, usuário, utente, gebruiker",
        "użytkownik, пользователь, користувач, kullanıcı, مستخدم, المستخدم, משתמש, उपयोगकर्ता, 用户, 用戶, 使用者",
        "ユーザー, 사용자, người dùng, pengguna",
        "input, inputs, Eingabe, entrée, entrada, вход, 输入, 輸入, 入力, 입력",
    ),
)
ANSWER = Role(
    "answer",
    (
        "answer, answers, a, ans",
        "Antwort, Antworten, réponse, réponses, respuesta, respuestas, contestación, resposta, respostas, risposta, risposte",
        "antwoord, antwoorden, odpowiedź, odpowiedzi, ответ, ответы, відповідь, відповіді, cevap, cevaplar, yanıt, yanıtlar",
        "odpověď, odpovědi, odpoveď, răspuns, răspunsuri, απάντηση, απαντήσεις, válasz, válaszok, отговор, отговори",
        "odgovor, svar, vastaus, vastaukset, جواب, الجواب, إجابة, الإجابة, اجابة, أجوبة, إجابات, الإجابات",
        "תשובה, תשובות, پاسخ, उत्तर, जवाब, উত্তর, பதில், సమాధానం",
        "答案, 回答, 答, 答复, 答覆, 解答, 答え, 回答文, 답변, 답, 대답, 정답, câu trả lời, trả lời, đáp án",
        "jawaban, jawapan, sagot, คำตอบ, jibu",
        "response, responses, reply, replies, completion, completions, output, outputs, solution, chosen",
        "Ausgabe, sortie, salida, saída, вывод, 输出, 輸出, 出力, 출력, 回复, 回覆, 응답, 返信, ответное сообщение",
        "assistant, bot, chatbot, gpt, chatgpt, model, ai, Assistent, asistente, assistente, asystent, ассистент, асистент",
        "asistan, مساعد, المساعد, עוזר, सहायक, 助手, アシスタント, 어시스턴트, trợ lý, asisten",
    ),
)

INSTRUCTION_NAMES = ("instruction", "instructions")
CONTEXT_NAMES = ("input", "context")

# Such a word makes it a column about questions or answers, or one of answers not to learn.
_OTHER_MATTERS = (
    "id, ids, no, nr, num, number, count, type, types, kind, category, categories, date, time, timestamp, created",
    "updated, by, author, name, email, mail, url, link, source, sources, score, rating, rank, length, lang, language",
    "tokens, status, topic, tag, tags, index, hash, label, options, choices",
    "incorrect, wrong, bad, rejected, false, falsch, falsche",
)
# Languages that glue words together: Kundenfrage, Antworttext.
_COMPOUNDED = ("frage", "antwort", "vraag", "antwoord", "fraga", "svar")
_WORD_BREAK = re.compile(r"(?<=[a-z])(?=[A-Z0-9])")
_CHAT_COLUMN = re.compile(r"\w+\[(\w+)\]")


# Rows that may be the header are rated again and again, and a sheet may be 16,384 columns wide.
@lru_cache(maxsize=1 << 16)
def rate(header: str, role: Role) -> tuple[Likeness, int]:
    """How surely `header` names the role, and its rank among names of that role (0 is the plainest)."""
    chat = _CHAT_COLUMN.fullmatch(header)
    name = normalize_name(chat[1] if chat else header)
    ranks = role.ranks
    if name in ranks:
        return Likeness.EXACT, ranks[name]
    words = normalize_name(_WORD_BREAK.sub(" ", header)).split()
    if len(words) > 6 or not _ranks(_OTHER_MATTERS).keys().isdisjoint(words):
        return Likeness.NONE, 0
    found = [rank for alias, rank in ranks.items() if _mentions(words, alias)]
    return (Likeness.SIMILAR, min(found)) if found else (Likeness.NONE, 0)


def normalize_name(header: str) -> str:
    """Letters and digits only: without case, accents, invisible characters and punctuation."""
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", header).casefold())
    kept = (
        "" if unicodedata.category(character) in ("Mn", "Cf") else character if _is_letter(character) else " "
        for character in decomposed
    )
    # Capital letters lose the difference between the two letters i of Turkish.
    return " ".join("".join(kept).replace("ı", "i").split())


def _is_letter(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character) == "Mc"


def _mentions(words: list[str], alias: str) -> bool:
    if len(alias) == 1 and alias.isascii():
        return False
    if _is_unspaced(alias):
        return len(alias) > 1 and any(alias in word for word in words)
    if alias in _COMPOUNDED:
        return any(word.startswith(alias) or word.endswith(alias) for word in words)
    return f" {alias} " in f" {' '.join(words)} "


@cache
def _is_unspaced(text: str) -> bool:
    """Chinese, Japanese and Thai write no spaces between words; Korean glues particles to them."""
    scripts = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "THAI")
    return all(unicodedata.name(character, "").startswith(scripts) for character in text)


@cache
def _ranks(lines: tuple[str, ...]) -> dict[str, int]:
    ranks: dict[str, int] = {}
    for rank, line in enumerate(lines):
        for name in line.split(","):
            ranks.setdefault(normalize_name(name), rank)
    return ranks
