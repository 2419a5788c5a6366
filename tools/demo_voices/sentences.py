"""The texts that the synthetic speakers read: written for this project, drawn from a seeded grammar and a list.

Most sentences are of invented words (`invented.py`), some of a grammar's; the hand-written list adds what they lack:
rare phone pairs, names, numbers, questions, short utterances. `HELD_OUT` is never part of a training text.
"""

from __future__ import annotations

from random import Random

from tools.demo_voices.invented import invented_sentence

__all__ = ["HELD_OUT", "WRITTEN", "compose"]

INVENTED_SHARE = 0.8  # of the sentences that are drawn

HELD_OUT = (
    "The children walked along the river until the sun went down.",
    "She opened the window and listened to the rain on the roof.",
    "We should leave the house before nine in the morning.",
    "My brother bought a small boat and painted it green.",
    "There is a letter for you on the kitchen table.",
    "He could not remember where he had put the keys.",
    "The teacher asked the class to read the first page again.",
    "A cold wind was blowing from the north all day long.",
    "They are going to build a new bridge across the valley.",
    "Please give me another cup of coffee with a little sugar.",
    "The young man told the doctor about the pain in his shoulder.",
    "Nobody knew why the old church bell was ringing at midnight.",
)

WRITTEN = (
    "Fresh fish is sold at the southern harbour each Thursday.",
    "Joyce measured the beige garage with unusual pleasure.",
    "The judge chose a huge orange chair.",
    "Though they thought it through, both brothers breathed with trouble.",
    "Zebras graze lazily as the breeze passes.",
    "Why would one want a warm wool sweater in August?",
    "The choir sang boys' songs along the long royal avenue.",
    "Vivid violets cover every grave in the village.",
    "A quick squirrel squeezed through a square hole.",
    "Yes, your yellow yacht is beyond the usual yard.",
    "Eleven elves ate oily olives at eight.",
    "Pull the full bush, push the good book.",
    "Our hour of power was sour and loud.",
    "Thick thorns are worth nothing to the seventh author.",
    "The azure vision was a casual illusion.",
    "Bob's job is to mop the shop.",
    "Go home, no more snow will blow.",
    "The nurse heard thirty birds in the dirty church.",
    "Hush, the machine is pushing fresh ash.",
    "Which witch watched the cheap Dutch kitchen?",
    "Strong springs stretch sprained straps.",
    "Twelve months' strengths were glimpsed at length.",
    "Ask the clerk if the desk is next to the lamp.",
    "He glanced, danced, and pranced past the plants.",
    "Look, a cook took a hook from the brook!",
    "Annoying noises spoiled the oyster party.",
    "Peter, Judy, George and Theodore are here.",
    "Monday, Tuesday, Wednesday, Thursday, Friday.",
    "One, two, three, four, five, six, seven, eight, nine, ten.",
    "Eighty-three thousand, four hundred and sixty-one.",
    "What is the meaning of all this?",
    "Good morning, how are you today?",
    "No, thank you.",
    "I beg your pardon.",
    "Do you really think so?",
    "Come in and close the door behind you.",
    "It was neither too early nor too late.",
    "The more you practise, the easier it becomes.",
    "If I had known, I would have told you at once.",
    "Anger, hunger and thirst make men forget their manners.",
    "Singers with rings on their fingers bring things.",
    "A bright white kite might fly high tonight.",
    "Paul saw a small hawk fall from the tall wall.",
    "You knew the few true blue shoes were new.",
    "The cat sat back, and that black rat ran past.",
    "Ten men sent every red hen to bed.",
    "Six big pigs will sit still in this ditch.",
    "Some young monks love fun, nuts, and hot buns.",
    "We see three green trees near the deep sea.",
    "They say the rain may delay the train to Spain.",
    "Her first word was certainly heard by the third girl.",
    "Father parked the large car far from the barn.",
    "Four more doors were torn by the storm.",
    "Their chairs are rarely bare, where there is care.",
    "Here, dear, is a clear beer near the pier.",
    "The poor tourist was sure of the tour.",
    "This is this, and that is that.",
    "Hot water was poured over the bottom of the pot.",
    "An ugly uncle under an umbrella was up in a hut.",
    "Hold the old gold bowl so it won't roll.",
)


def _list(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.split("|")]


_SUBJECTS = _list("""
the farmer | a tall woman | my sister | the captain | our neighbour | the old king | a young girl | the baker
| this engineer | the quiet nurse | that lawyer | his cousin | the whole family | every student | the mayor |
a stranger | her uncle | the gardener | one soldier | the pilot | their grandmother | some children | the
musicians | two fishermen | both painters | the guests | many people | the workers | Thomas | Margaret |
George | Alice | Victor | Charlotte | Joseph | Zoe | Hugh | Beth | Oliver | Ruth | Jacob | Yvonne
""")
_VERBS = _list("""
carried | bought | painted | found | forgot | noticed | described | watched | repaired | borrowed | measured |
followed | wanted | chose | brought | showed | examined | dropped | pushed | hid | washed | collected |
imagined | needed | sold | lifted | opened | threw | covered | joined | reached | praised | finished | refused
| mentioned | caught | kept | used | shook | enjoyed
""")
_ADJECTIVES = _list("""
small | heavy | yellow | broken | wooden | beautiful | strange | narrow | ancient | shiny | cheap | huge |
gentle | dusty | round | purple | thin | empty | curious | warm | frozen | bright | rough | sharp | golden |
ordinary | early | soft | foreign | smooth | greasy | royal | dangerous | useful | fragile | thick | loud |
orange | clever | bitter
""")
_OBJECTS = _list("""
box | letter | bicycle | chair | picture | garden | hammer | basket | newspaper | window | jacket | bottle |
treasure | garage | bridge | violin | mushroom | blanket | engine | sandwich | map | judge | vase | measure |
thread | feather | mirror | wheel | pencil | kettle | ladder | shovel | telephone | boat | apple | curtain |
lamp | glove | book | coin | fish | cheese | puzzle | village | watch | song | question | machine
""")
_PLACES = _list("""
near the station | behind the church | in the valley | under the table | at the market | beside the river | on
the roof | across the field | in the kitchen | along the beach | outside the museum | between the hills |
above the harbour | at school | through the forest | in front of the theatre | by the fireplace | from the
cellar | in the city | around the corner | on the northern shore | over the fence | without any help | for the
choir | with great pleasure
""")
_TIMES = _list("""
yesterday | before breakfast | last winter | in the evening | at noon | every Thursday | after the storm |
during the summer | years ago | this morning | just in time | for an hour | all night long | again and again |
on the fourth of July | at half past six | once a month | until midnight | in eighteen ninety | as usual | too
late | very slowly | quite suddenly
""")
_OPENERS = _list("""
I think that | perhaps | of course | they say that | as you know | it seems that | by the way, | to be honest,
| we heard that | she believes that | nobody said that | I wish I knew why | it is true that | later on, |
sooner or later
""")
_INFINITIVES = _list("""
carry | buy | paint | find | forget | notice | describe | watch | repair | borrow | measure | follow | choose
| bring | show | examine | push | hide | wash | collect | imagine | sell | lift | open | throw | cover | join
| reach | finish | mention | catch | keep | shake | enjoy
""")
_MODALS = _list("""
can | could | should | would | will | must | might | may
""")
_PRONOUNS = _list("""
I | you | he | she | we | they | it
""")


def compose(count: int, seed: int) -> list[str]:
    """Return `count` different sentences, the hand-written ones among them; none is held out."""
    random = Random(seed)
    sentences = list(WRITTEN[:count])
    known = {*sentences, *HELD_OUT}
    while len(sentences) < count:
        form = invented_sentence if random.random() < INVENTED_SHARE else random.choice(_FORMS)
        sentence = form(random)
        sentence = sentence[0].upper() + sentence[1:]
        if sentence not in known:
            known.add(sentence)
            sentences.append(sentence)
    random.shuffle(sentences)
    return sentences


def _thing(random: Random) -> str:
    adjective = random.choice(_ADJECTIVES)
    article = random.choice(("the", "an" if adjective[0] in "aeiou" and not adjective.startswith("u") else "a"))
    return f"{article} {adjective} {random.choice(_OBJECTS)}"


def _statement(random: Random) -> str:
    return f"{random.choice(_SUBJECTS)} {random.choice(_VERBS)} {_thing(random)} {random.choice(_PLACES)}."


def _timed(random: Random) -> str:
    return f"{random.choice(_TIMES)}, {random.choice(_PRONOUNS)} {random.choice(_VERBS)} {_thing(random)}."


def _opened(random: Random) -> str:
    subject = random.choice(_SUBJECTS)
    return f"{random.choice(_OPENERS)} {subject} {random.choice(_VERBS)} {_thing(random)} {random.choice(_TIMES)}."


def _question(random: Random) -> str:
    who = random.choice((random.choice(_PRONOUNS), random.choice(_SUBJECTS)))
    modal = random.choice((*_MODALS, "did"))
    return f"{modal} {who} {random.choice(_INFINITIVES)} {_thing(random)} {random.choice(_PLACES)}?"


def _order(random: Random) -> str:
    return f"{random.choice(('please', 'now', 'do not', 'always'))} {random.choice(_INFINITIVES)} {_thing(random)}."


def _pair(random: Random) -> str:
    first, second = random.sample(_ADJECTIVES, 2)
    thing = random.choice(_OBJECTS)
    start = f"{random.choice(_PRONOUNS)} {random.choice(_MODALS)} {random.choice(_INFINITIVES)}"
    return f"{start} the {first}, {second} {thing}."


def _possession(random: Random) -> str:
    owner = random.choice(_SUBJECTS)
    things = f"{random.choice(_OBJECTS)} and {random.choice(_OBJECTS)}"
    return f"{owner}'s {things} {random.choice(('was', 'stood', 'lay', 'fell', 'is'))} {random.choice(_PLACES)}."


_FORMS = (_statement, _timed, _opened, _question, _order, _pair, _possession)
